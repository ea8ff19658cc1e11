"""Checkpoints: names such as //bundled/NAME, release folders and export.

A release folder holds `state_dict.bin` (the language model) and `compression_state_dict.bin` (its codec), each with
`best_state`, `xp.cfg` (YAML text), `version` and `exported`, as AudioCraft publishes them, and the same as safetensors.
"""
import typing as tp
from pathlib import Path

import torch
from omegaconf import OmegaConf

from ..environment import PACKAGE
from .files import SAFETENSORS, load, release, write_reference, write_safetensors
from .untrusted import check_finite, check_reference, read_config

LM_FILE, CODEC_FILE, CHECKPOINT = "state_dict.bin", "compression_state_dict.bin", "checkpoint.th"
BUNDLED, BUNDLED_PREFIX = PACKAGE / "models" / "bundled", "//bundled/"
LISTED = 8                      # names of weights in an error


def load_resolving_reference(path: tp.Union[str, Path]) -> dict[str, tp.Any]:
    """Load a file; if it only refers to a bundled codec (see `write_reference`), load that codec's file.

    A reference to a codec on the hub is returned as it is.
    """
    package = load_dict(path)
    source = str(package.get("pretrained", ""))
    return load(bundled(source.removeprefix(BUNDLED_PREFIX)) / CODEC_FILE) if source.startswith(BUNDLED_PREFIX) else package


def load_dict(path: tp.Union[str, Path], device: str = "cpu") -> dict[str, tp.Any]:
    """Load a file that holds a dict, and check the name of the codec to which it refers, if it does.

    Raises:
        ValueError: it holds anything else, or refers to a path.
    """
    package = load(path, device)
    if not isinstance(package, dict):
        raise ValueError(f"{path} holds a {type(package).__name__}, not a checkpoint of AudioCraft")
    if "pretrained" in package:
        check_reference(package["pretrained"], path)
    return package


def load_checked(path: tp.Union[str, Path], device: str = "cpu") -> dict[str, tp.Any]:
    """Load a file for AudioCraft's own functions, with its config checked (see `read_config`) and its weights finite."""
    package = load_dict(path, device)
    if isinstance(package.get("best_state"), dict) and "exported" in package:
        check_finite(package["best_state"], path)
    return {**package, "xp.cfg": read_config(package["xp.cfg"], path)} if "xp.cfg" in package else package


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
    if not folder.is_dir() or folder.parent != BUNDLED or name in ("", ".."):
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
        names = [file, CODEC_FILE] if file == LM_FILE else [file]     # The latter is the release folder of a codec.
        candidates = [path / CHECKPOINT, *(one for name in names for one in (path / name, safetensors_of(path / name)))]
        path = next((candidate for candidate in candidates if candidate.exists()), path / CHECKPOINT)
    return path if path.exists() else None


def safetensors_of(path: Path) -> Path:
    """Return the path of a release file's copy as safetensors."""
    return path.with_suffix(SAFETENSORS)


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
        ValueError: keys are missing or unknown, or shapes differ; the first of them are listed.
    """
    own = model.state_dict()
    missing, unknown = sorted(own.keys() - state.keys()), sorted(state.keys() - own.keys())
    shapes = [f"{key}: {list(state[key].shape)} instead of {list(own[key].shape)}"
              for key in sorted(own.keys() & state.keys()) if own[key].shape != state[key].shape]
    found = [f"{word}: {', '.join(items[:LISTED])}" + (f" and {len(items) - LISTED} more" if len(items) > LISTED else "")
             for word, items in
             (("missing keys", missing), ("unknown keys", unknown), ("mismatched shapes", shapes)) if items]
    if found:
        raise ValueError(f"{source} does not match the model described by its config, and nothing was loaded; "
                         + "; ".join(found))


def export(source: str, out: tp.Union[str, Path], half: bool = False) -> Path:
    """Write the release folder of a trained model, each file also as safetensors; reload it and compare.

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
    compare(target, package["best_state"], source, half)
    for path in {target, out / CODEC_FILE}:
        write_safetensors(load(path), safetensors_of(path))
    compare(safetensors_of(target), package["best_state"], source, half)
    return out


def compare(path: Path, state: dict[str, torch.Tensor], source: str, half: bool) -> None:
    """Raise ValueError if the file of an export does not hold exactly these weights, in float16 with `half`."""
    written = load(path)["best_state"]
    for key, value in state.items():
        expected = value.half() if half and value.is_floating_point() else value
        if key not in written or not torch.equal(written[key], expected.cpu()):
            raise ValueError(f"{path}: {key} differs from {source} after writing; check free disk space")


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
