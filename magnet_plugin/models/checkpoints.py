"""Checkpoints: safe loading, names such as //bundled/NAME, release folders and export.

A release folder holds `state_dict.bin` (the language model) and `compression_state_dict.bin` (its codec), each with
`best_state`, `xp.cfg` (YAML text), `version` and `exported`, as AudioCraft publishes them.
"""
import collections
import contextlib
import pickle
import re
import threading
import typing as tp
from pathlib import Path

import omegaconf
import torch
from omegaconf import DictConfig, OmegaConf

from .. import __version__
from ..environment import PACKAGE, atomic_write
from .untrusted import check_archive, check_finite, read_config

LM_FILE, CODEC_FILE, CHECKPOINT = "state_dict.bin", "compression_state_dict.bin", "checkpoint.th"
BUNDLED, BUNDLED_PREFIX = PACKAGE / "models" / "bundled", "//bundled/"


def _safe_defaultdict(factory: tp.Any = None) -> dict:
    """Replace the defaultdict of the EMA's state, which torch's safe loading cannot fill."""
    return {}


# What training checkpoints contain besides tensors. torch.load accepts nothing else.
SAFE_GLOBALS: list[tp.Any] = [
    omegaconf.DictConfig, omegaconf.ListConfig, omegaconf.base.ContainerMetadata, omegaconf.base.Metadata,
    omegaconf.base.Container, omegaconf.nodes.AnyNode, omegaconf.nodes.StringNode, omegaconf.nodes.IntegerNode,
    omegaconf.nodes.FloatNode, omegaconf.nodes.BooleanNode, omegaconf.nodes.InterpolationResultNode,
    tp.Any, dict, list, int, float, str, bool, tuple, set, collections.OrderedDict,
    (_safe_defaultdict, "collections.defaultdict"),
]
_loading = threading.RLock()


@contextlib.contextmanager
def safe_globals() -> tp.Iterator[None]:
    """Let `torch.load` accept `SAFE_GLOBALS` inside the context, and restore what it accepted before.

    torch's own context of this name also removes what others had registered.
    """
    with _loading:
        before = torch.serialization.get_safe_globals()
        others = [item for item in before if item is not collections.defaultdict]     # torch accepts one item of a name
        torch.serialization.clear_safe_globals()
        torch.serialization.add_safe_globals(others + SAFE_GLOBALS)
        try:
            yield
        finally:
            torch.serialization.clear_safe_globals()
            torch.serialization.add_safe_globals(before)


def load(path: tp.Union[str, Path]) -> tp.Any:
    """Load a file to the CPU with torch, accepting only tensors and `SAFE_GLOBALS`.

    Raises:
        ValueError: the file contains anything else, or is not a checkpoint.
    """
    check_archive(path)
    try:
        with safe_globals():
            return torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, LookupError, ValueError, TypeError, AttributeError) as error:
        found = re.search(r"GLOBAL (\S+)", str(error))
        reason = f"it contains {found[1]}, an object type that is not allowed" if found else \
            "it is not a checkpoint, or is truncated"
        raise ValueError(f"{path} cannot be loaded safely: {reason}; no code in it was run") from error


def load_resolving_reference(path: tp.Union[str, Path]) -> dict[str, tp.Any]:
    """Load a file; if it only refers to a bundled codec (see `write_reference`), load that codec's file.

    A reference to a codec on the hub is returned as it is.
    """
    package = load(path)
    if not isinstance(package, dict):
        raise ValueError(f"{path} holds a {type(package).__name__}, not a checkpoint of AudioCraft")
    source = str(package.get("pretrained", ""))
    return load(bundled(source.removeprefix(BUNDLED_PREFIX)) / CODEC_FILE) if source.startswith(BUNDLED_PREFIX) else package


def load_as_checkpoint(path: tp.Union[str, Path]) -> dict[str, tp.Any]:
    """Load a training checkpoint, or a release file in the form of one, as `continue_from` needs it."""
    state = load_resolving_reference(path)
    if "exported" in state and "best_state" in state:
        state = {"best_state": {"model": state["best_state"]}, "xp.cfg": OmegaConf.create(state["xp.cfg"])}
    return state


def bundled(name: str) -> Path:
    """Return the folder of a bundled model.

    Raises:
        ValueError: there is no such model; the message lists those that exist.
    """
    folder = BUNDLED / name
    if not folder.is_dir() or not name:
        known = sorted(path.name for path in BUNDLED.glob("*") if path.is_dir())
        raise ValueError(f"//bundled/{name}: no such bundled model; available: {', '.join(known) or 'none'}")
    return folder


def resolve(name: tp.Union[str, Path], file: str = LM_FILE) -> tp.Optional[Path]:
    """Find the checkpoint file of a name.

    Args:
        name: `//bundled/NAME`, `//sig/SIG`, `//reference/…`, a file, or a folder of a run or of a release.
        file: which file of a release folder to find.
    Returns:
        Path of an existing file, or None.
    """
    from audiocraft.environment import AudioCraftEnvironment
    name = str(name)
    if name.startswith(BUNDLED_PREFIX):
        path = bundled(name.removeprefix(BUNDLED_PREFIX))
    elif name.startswith("//sig/"):
        path = AudioCraftEnvironment.get_dora_dir() / "xps" / name.removeprefix("//sig/")
    else:
        path = AudioCraftEnvironment.resolve_reference_path(name)
    if path.is_dir():
        candidates = [path / CHECKPOINT, path / file]
        if file == LM_FILE:
            candidates.append(path / CODEC_FILE)     # The release folder of a codec.
        path = next((candidate for candidate in candidates if candidate.exists()), path / CHECKPOINT)
    return path if path.exists() else None


def load_package(name: tp.Union[str, Path], file: str) -> dict[str, tp.Any]:
    """Load a model's weights and config.

    Args:
        name: a name for `resolve`, or a name on the hub.
        file: `state_dict.bin` or `compression_state_dict.bin`.
    Returns:
        `best_state` (tensors by name) and `xp.cfg` (a DictConfig); or only `pretrained`, the name of a codec on the hub.
    Raises:
        ValueError: nothing is found under a local name, or the file has no such content.
    """
    path = resolve(name, file)
    if path is None:
        if str(name).startswith(("//", "/", ".")):
            raise ValueError(f"{name}: no checkpoint found (looked for {CHECKPOINT} and {file}); use //bundled/NAME, "
                             "//sig/SIG, a checkpoint, the folder of a run or release, or a name on the hub")
        from audiocraft.models import loaders
        package = loaders._get_state_dict(str(name), filename=file)
    else:
        package = load_resolving_reference(path)
    if "pretrained" in package:
        return package
    best = package.get("fsdp_best_state") or package.get("best_state")
    if not best or "xp.cfg" not in package:
        raise ValueError(f"{path or name} contains {', '.join(map(str, package))}, but not best_state and xp.cfg; use a "
                         "checkpoint of AudioCraft")
    state = best.get("model", best) if isinstance(best, dict) else best
    if not isinstance(state, dict):
        raise ValueError(f"{path or name}: best_state is a {type(state).__name__}, not weights by name")
    check_finite(state, path or name)
    return {"best_state": state, "xp.cfg": read_config(package["xp.cfg"], path or name)}


def load_weights(model: torch.nn.Module, state: dict[str, torch.Tensor], source: tp.Union[str, Path]) -> None:
    """Load `state` completely or not at all; see `check_weights` for the errors."""
    check_weights(model, state, source)
    model.load_state_dict(state)


def check_weights(model: torch.nn.Module, state: dict[str, torch.Tensor], source: tp.Union[str, Path]) -> None:
    """Check that `state` fits `model` exactly.

    Raises:
        ValueError: keys are missing or unknown, or shapes differ; all of them are listed.
    """
    own = model.state_dict()
    missing, unknown = sorted(own.keys() - state.keys()), sorted(state.keys() - own.keys())
    shapes = [f"{key}: {list(state[key].shape)} instead of {list(own[key].shape)}"
              for key in sorted(own.keys() & state.keys()) if own[key].shape != state[key].shape]
    found = [f"{word}: {', '.join(items)}" for word, items in
             (("missing keys", missing), ("unknown keys", unknown), ("mismatched shapes", shapes)) if items]
    if found:
        raise ValueError(f"{source} does not match the model described by its config, and nothing was loaded; "
                         + "; ".join(found))


def release(best_state: dict[str, torch.Tensor], cfg: DictConfig, path: Path, half: bool = False) -> None:
    """Write one file of a release folder, in float16 with `half`."""
    if half:
        best_state = {key: value.half() if value.is_floating_point() else value for key, value in best_state.items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path, durable=True) as temporary:
        torch.save({"best_state": {key: value.detach().cpu().clone() for key, value in best_state.items()},
                    "xp.cfg": OmegaConf.to_yaml(cfg), "version": __version__, "exported": True}, temporary)


def export(source: str, out: tp.Union[str, Path], half: bool = False) -> Path:
    """Write the release folder of a trained model, reload it and compare.

    Args:
        source: a codec or language model by a name for `load_package`: `//sig/SIG`, a checkpoint or a folder.
        out: folder to write.
        half: store float16, half the size.
    Returns:
        The folder.
    Raises:
        ValueError: the source has no weights, or what was written differs from it.
    """
    out = Path(out)
    package = load_package(source, LM_FILE)
    cfg = package["xp.cfg"]
    if cfg.get("solver") == "compression" or "lm_model" not in cfg:
        target = out / CODEC_FILE
    else:
        target = out / LM_FILE
        export_codec(cfg.compression_model_checkpoint, out / CODEC_FILE, half)
    release(package["best_state"], cfg, target, half)
    written = load(target)["best_state"]
    for key, value in package["best_state"].items():
        expected = value.half() if half and value.is_floating_point() else value
        if key not in written or not torch.equal(written[key], expected.cpu()):
            raise ValueError(f"{target}: {key} differs from {source} after writing; check free disk space")
    return out


def export_codec(source: str, path: Path, half: bool = False) -> None:
    """Write the codec that a language model's `compression_model_checkpoint` names; a codec on the hub by its name only."""
    if source.startswith("//pretrained/"):
        write_reference(source.removeprefix("//pretrained/"), path)
        return
    package = load_package(source, CODEC_FILE)
    if "pretrained" in package:
        write_reference(package["pretrained"], path)
    else:
        release(package["best_state"], package["xp.cfg"], path, half)


def write_reference(name: str, path: Path) -> None:
    """Write a codec file that refers to another codec: a name on the hub, or `//bundled/NAME`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path, durable=True) as temporary:
        torch.save({"pretrained": name, "exported": True, "version": __version__}, temporary)
