"""Files from strangers: what a release folder or checkpoint may hold is checked before anything is built from it."""
import contextlib
import re
import typing as tp
import zipfile
from pathlib import Path

import torch
import yaml
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import InterpolationKeyError, OmegaConfBaseException

MAX_TEXT = 2 ** 20      # bytes of a config
MAX_DEPTH = 32          # of nested entries
MAX_EVENTS = 50_000     # of the YAML parser: about one for each word
MAX_COUNT, MAX_SIZE = 256, 2 ** 20              # of a codec's layers or codebooks; and of everything else
CODEC_SECTIONS = ("seanet", "stft", "rvq", "encodec")
COUNTS = {"n_residual_layers", "lstm", "n_q", "num_layers", "layers"}
_REFERENCE = re.compile(r"(//bundled/)?\w[\w.-]*(/\w[\w.-]*)?")
_CALL, _OWN = re.compile(r"\$\{\s*([\w.]+)\s*:"), "magnet."
Path_ = tp.Union[str, Path]


def check_archive(path: Path_) -> None:
    """Check that a file of torch is complete, and does not unpack to more than it holds on the disk.

    Raises:
        ValueError: it is truncated, its entries are compressed, which torch never does, or it is no file but a device or
            a pipe, from which reading might never end. Symbolic links are followed: the hub's cache consists of them.
    """
    if not Path(path).is_file():
        raise ValueError(f"{path} cannot be loaded safely: it is not a regular file")
    with open(path, "rb") as file:
        is_archive = file.read(2) == b"PK"
    if is_archive and not zipfile.is_zipfile(path):
        raise ValueError(f"{path} cannot be loaded safely: it is truncated")
    if is_archive:
        with zipfile.ZipFile(path) as archive:
            unpacked = sum(entry.file_size for entry in archive.infolist())
        if unpacked > Path(path).stat().st_size:
            raise ValueError(f"{path} unpacks to {unpacked} bytes, more than it has on the disk; torch writes no such "
                             "files: get it again from its source")


def read_config(cfg: tp.Any, path: Path_) -> DictConfig:
    """Read the config of a checkpoint: YAML text, or a DictConfig.

    Settings that read environment variables become empty: training used them for paths, and nothing else needs them.

    Args:
        cfg: the config as stored.
        path: the file, for errors.
    Raises:
        ValueError: it is too large or too deep, has aliases, calls functions other than this plugin's, or refers to itself.
    """
    try:
        if isinstance(cfg, str):
            _check_yaml(cfg)
            cfg = OmegaConf.create(cfg)
        if not isinstance(cfg, DictConfig):
            raise ValueError("it is not a mapping of settings")
        cfg = OmegaConf.create(_without_environment(OmegaConf.to_container(cfg, resolve=False)))
        _check_references(cfg)
    except RecursionError:
        raise ValueError(f"{path}: its config cannot be read: settings refer to each other in a circle") from None
    except (ValueError, TypeError, yaml.YAMLError, OmegaConfBaseException) as error:
        reason = " ".join(str(error).split())[:200]
        raise ValueError(f"{path}: its config cannot be read: {reason}") from None
    return tp.cast(DictConfig, cfg)


def check_sizes(cfg: DictConfig, state: tp.Mapping[str, torch.Tensor], path: Path_) -> None:
    """Check that a language model's config describes the weights, before memory is allocated by the config.

    Raises:
        ValueError: sizes in the config differ from those of the weights.
    """
    sizes = cfg.get("transformer_lm")
    if not isinstance(sizes, DictConfig):
        raise ValueError(f"{path}: its config has no transformer_lm; give the file of a language model")
    layers = {key.split(".")[2] for key in state if key.startswith("transformer.layers.")}
    embeddings = [value for key, value in state.items() if key.startswith("emb.") and key.endswith(".weight")]
    stored = {"num_layers": len(layers), "n_q": len(embeddings)}
    if embeddings and embeddings[0].dim() == 2:
        stored |= {"card": embeddings[0].shape[0] - 1, "dim": embeddings[0].shape[1]}
    wrong = [f"{name}={sizes.get(name)!r}, but the weights have {size}" for name, size in stored.items()
             if sizes.get(name) != size]
    hidden, wide = sizes.get("hidden_scale", 4), state.get("transformer.layers.0.linear1.weight")
    if (not wrong and wide is not None and wide.dim() == 2 and isinstance(hidden, (int, float))
            and not abs(hidden * wide.shape[1] - wide.shape[0]) < 1):         # also if it is not a number
        wrong = [f"hidden_scale={hidden!r}, but the weights have {wide.shape[0] / max(wide.shape[1], 1):g}"]
    if wrong:
        raise ValueError(f"{path}: its config does not describe its weights: "
                         + "; ".join(f"transformer_lm.{one}" for one in wrong))


def check_codec_sizes(cfg: DictConfig, path: Path_) -> None:
    """Check the numbers from which a codec is built, before anything is built by them.

    Raises:
        ValueError: a number is far beyond those of any codec.
    """
    numbers: dict[str, tp.Any] = {}
    for section in CODEC_SECTIONS:
        _collect_numbers(cfg.get(section), section, numbers)
    for name, value in numbers.items():
        limit = MAX_COUNT if name.rpartition(".")[2] in COUNTS else MAX_SIZE
        if not abs(value) <= limit:             # also if it is not a number
            raise ValueError(f"{path}: its config has {name}={value}, and no codec has more than {limit}; get the file "
                             "again from its source")


def _collect_numbers(value: tp.Any, name: str, found: dict[str, tp.Any]) -> None:
    if OmegaConf.is_dict(value):
        for key in value:
            _collect_numbers(value[key], f"{name}.{key}", found)
    elif OmegaConf.is_list(value):
        for position, inner in enumerate(value):
            _collect_numbers(inner, f"{name}.{position}", found)
    elif isinstance(value, (int, float)):
        found[name] = value


def check_reference(name: tp.Any, path: Path_) -> str:
    """Return the codec that a file refers to: a name on the hub, or `//bundled/NAME`.

    Raises:
        ValueError: it is a path, by which a stranger's file could choose a file of this machine.
    """
    if not isinstance(name, str) or not _REFERENCE.fullmatch(name):
        raise ValueError(f"{path} refers to the codec {str(name)[:100]!r}, which is neither //bundled/NAME nor a name on "
                         "the hub; get it again from its source")
    return name


def check_finite(state: tp.Mapping[str, torch.Tensor], path: Path_) -> None:
    """Raise ValueError if a weight is infinite or not a number, or if an entry is not a tensor."""
    for key, value in state.items():
        if not isinstance(value, torch.Tensor):
            raise ValueError(f"{path}: the entry {key} is no tensor but a {type(value).__name__}")
        if value.is_floating_point() and not bool(value.isfinite().all()):
            raise ValueError(f"{path}: the weight {key} has values that are infinite or not a number; use an earlier "
                             "checkpoint")


def _check_yaml(text: str) -> None:
    if len(text) > MAX_TEXT:
        raise ValueError(f"it has {len(text)} characters, more than {MAX_TEXT}")
    depth = 0
    for count, event in enumerate(yaml.parse(text, Loader=yaml.SafeLoader)):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if isinstance(event, yaml.AliasEvent):
            raise ValueError("it repeats parts of itself by aliases")
        if depth > MAX_DEPTH:
            raise ValueError(f"its entries are nested more than {MAX_DEPTH} deep")
        if count > MAX_EVENTS:
            raise ValueError(f"it has more than {MAX_EVENTS} entries")


def _without_environment(value: tp.Any) -> tp.Any:
    """Return plain settings with `${oc.env:...}` emptied; refuse calls of other functions than those of this plugin."""
    if isinstance(value, dict):
        return {key: _without_environment(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_without_environment(inner) for inner in value]
    calls = set(_CALL.findall(value)) if isinstance(value, str) else set()
    if "oc.env" in calls:
        return ""
    if not all(name.startswith(_OWN) for name in calls):
        raise ValueError(f"{value!r} calls a function, which a config of a checkpoint may not")
    return value


def _check_references(cfg: tp.Any) -> None:
    """Follow all references once, so that circles and broken syntax are found here. References to nothing are left alone."""
    for key in range(len(cfg)) if OmegaConf.is_list(cfg) else list(cfg):
        node = cfg._get_node(key)
        if node is not None and OmegaConf.is_config(node) and not node._is_interpolation() and not node._is_none():
            _check_references(node)
        elif node is not None and node._is_interpolation() and _OWN not in str(node._value()):
            with contextlib.suppress(InterpolationKeyError):
                cfg[key]
