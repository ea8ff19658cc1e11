"""What the files of a model hold, without running code from them and without reading their weights."""
from __future__ import annotations

import json
import re
import typing as tp
from collections import Counter
from pathlib import Path

import safetensors
import torch
import yaml
from omegaconf import DictConfig, OmegaConf

from .. import environment
from .checkpoints import BUNDLED_PREFIX, CHECKPOINT, CODEC_FILE, LM_FILE, bundled, safetensors_of
from .files import SAFETENSORS, load, safe_globals
from .resolvers import register_resolvers
from .untrusted import check_archive, read_config

#: Files of a folder that are looked at, in this order.
KNOWN = [CHECKPOINT, "preempted.th", *(str(path) for name in (LM_FILE, CODEC_FILE)
                                       for path in (Path(name), safetensors_of(Path(name))))]
DTYPES = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16", "I64": "int64", "I32": "int32",
          "U8": "uint8", "BOOL": "bool"}        # safetensors' names
#: What is shown of a config: name -> key.
SUMMARY = {"solver": "solver", "language model": "lm_model", "continued from": "continue_from", "label": "label",
           "sample rate (Hz)": "sample_rate", "channels": "channels", "segment (s)": "dataset.segment_duration",
           "codec": "compression_model_checkpoint", "codebooks": "transformer_lm.n_q", "entries": "transformer_lm.card",
           "frame rate (Hz)": "transformer_lm.compression_model_framerate", "dimension": "transformer_lm.dim",
           "layers": "transformer_lm.num_layers", "heads": "transformer_lm.num_heads",
           "context (frames)": "transformer_lm.subcodes_context", "span (frames)": "masking.span_len"}
CODEC_SUMMARY = {"solver": "solver", "sample rate (Hz)": "sample_rate", "channels": "channels",
                 "autoencoder": "encodec.autoencoder", "codebooks": "rvq.n_q", "entries": "rvq.bins"}
#: Stands in a model card where the licence belongs, until the user states one.
PLACEHOLDER = "FILL-IN"
Facts = dict[str, tp.Any]


def locate(name: str) -> Path:
    """Return the file or folder that a name means: `//bundled/NAME`, `//sig/SIGNATURE`, or a path.

    Raises:
        ValueError: it does not exist.
    """
    if name.startswith(BUNDLED_PREFIX):
        return bundled(name.removeprefix(BUNDLED_PREFIX))
    path = environment.dora_dir() / "xps" / name.removeprefix("//sig/") if name.startswith("//sig/") else Path(name)
    if not path.exists():
        hub = re.fullmatch(r"[\w.-]+/[\w.-]+", name) is not None
        raise ValueError(f"{name} does not exist here; " + (f"to inspect a model of the hub, download it first: hf download "
                         f"{name} --local-dir FOLDER" if hub else "give a release folder, a checkpoint, the name of a run, "
                         "//sig/SIGNATURE or //bundled/NAME"))
    return path


def inspect(path: Path) -> Facts:
    """Describe a checkpoint, or the folder of a run or of a release.

    Returns:
        `path`, `safe` (whether no file needs code to be run), `licence` (None if it is not stated), `model` (settings of the
        language model, or of the codec if there is no other), and `files` (see `inspect_file`).
    Raises:
        ValueError: there is no file of a model.
    """
    register_resolvers()
    files = [path] if path.is_file() else [path / name for name in KNOWN if (path / name).is_file()]
    if not files:
        raise ValueError(f"{path} holds none of {', '.join(KNOWN)}; give a release folder, the folder of a run, or a file")
    found = [inspect_file(file) for file in files]
    settings = [facts["settings"] for facts in found if facts.get("settings")]
    return {"path": str(path), "safe": all(facts["safe"] for facts in found),
            "licence": licence_of(path if path.is_dir() else path.parent), "model": settings[0] if settings else None,
            "files": found}


def inspect_file(path: Path) -> Facts:
    """Describe one file: `file`, `bytes`, `safe`, `kind`, `problem` (why it is not safe), `weights`, `settings`, others."""
    facts: Facts = {"file": path.name, "bytes": path.stat().st_size, "safe": True, "kind": "other"}
    try:
        package = _safetensors_shapes(path) if path.suffix == SAFETENSORS else _torch_shapes(path)
        return {**facts, **describe(package, path)}
    except Unsafe as error:
        return {**facts, "safe": False, "kind": "unsafe", "problem": str(error)}
    except ValueError as error:
        return {**facts, "safe": False, "kind": "unreadable", "problem": str(error)}


class Unsafe(Exception):
    """A file needs objects that may run code; the message names them."""


def _torch_shapes(path: Path) -> Facts:
    """Load a file of torch.save with tensors that have shapes but no values."""
    check_archive(path)
    try:
        with safe_globals():
            unsafe = torch.serialization.get_unsafe_globals_in_checkpoint(str(path))
    except (ValueError, RuntimeError) as error:
        raise ValueError(f"not a file that torch.save has written: {error}") from error
    if unsafe:
        raise Unsafe(f"it contains objects of other types than weights and settings: {', '.join(sorted(unsafe))}. Loading "
                     "them can run any code; this plugin refuses to")
    package = load(path, device="meta")
    if not isinstance(package, dict):
        raise ValueError(f"it holds a {type(package).__name__}, not a checkpoint of AudioCraft")
    return package


def _safetensors_shapes(path: Path) -> Facts:
    try:
        with safetensors.safe_open(str(path), framework="pt") as file:
            names = file.keys()
            parts = {name: file.get_slice(name) for name in names}
            state = {key: torch.empty(part.get_shape(), dtype=getattr(torch, DTYPES[part.get_dtype()]), device="meta")
                     for key, part in parts.items()}
            return {**(file.metadata() or {}), **({"best_state": state} if state else {})}
    except (safetensors.SafetensorError, OSError, KeyError) as error:
        raise ValueError(f"not a safetensors file with weights of a known type: {error}") from error


def describe(package: Facts, path: Path) -> Facts:
    """Describe the content of a file."""
    if "pretrained" in package:
        return {"kind": f"reference to the codec {package['pretrained']}"}
    best: Facts = package.get("fsdp_best_state") or package.get("best_state") or {}
    state: Facts = best.get("model", best)
    cfg = read_config(package["xp.cfg"], path) if "xp.cfg" in package else None
    kind = "weights" if cfg is None else "language model" if "lm_model" in cfg else "codec"
    if "position" in package:
        facts: Facts = {"kind": f"{kind}: a run that was stopped within epoch {package['position'].get('epoch')}"}
    elif "exported" in package:
        facts = {"kind": f"{kind}: release", "version": str(package.get("version", "unknown"))}
    elif "history" in package:
        facts = {"kind": f"{kind}: training checkpoint", "epochs": len(package["history"])}
    else:
        facts = {"kind": kind}
    return {**facts, "holds": sorted(map(str, package)), "weights": weights_of(state),
            "settings": None if cfg is None else summary(cfg)}


def weights_of(state: tp.Mapping[str, tp.Any]) -> Facts:
    """Count the tensors of a state, their values and their bytes, by type."""
    tensors = [value for value in state.values() if isinstance(value, torch.Tensor)]
    dtypes = Counter(str(value.dtype).removeprefix("torch.") for value in tensors)
    return {"tensors": len(tensors), "parameters": sum(value.numel() for value in tensors),
            "bytes": sum(value.numel() * value.element_size() for value in tensors), "dtypes": dict(dtypes.most_common())}


def summary(cfg: DictConfig) -> Facts:
    """Return the settings that say what a model is; those that its config lacks are omitted."""
    found = {name: _select(cfg, key) for name, key in (SUMMARY if "lm_model" in cfg else CODEC_SUMMARY).items()}
    conditioners = _select(cfg, "conditioners") or {}
    found["conditioners"] = {name: conf.get("model") for name, conf in conditioners.items() if name != "args"} or None
    return {name: value for name, value in found.items() if value is not None}


def _select(cfg: DictConfig, key: str) -> tp.Any:
    """Return a setting as plain values; None if it is missing or refers to something that is."""
    try:
        value = OmegaConf.select(cfg, key)
        return OmegaConf.to_container(value, resolve=False) if OmegaConf.is_config(value) else value
    except Exception as error:
        if not type(error).__module__.startswith("omegaconf"):
            raise
        return None


def licence_of(folder: Path) -> str | None:
    """Return the licence that the card of a release folder states (README.md or card.json); None if it states none."""
    readme, card = folder / "README.md", folder / "card.json"
    if readme.is_file() and (found := re.match(r"---\n(.*?)\n---\n", readme.read_text(encoding="utf-8"), re.S)):
        try:
            facts = yaml.safe_load(found[1])
        except yaml.YAMLError:
            facts = None
        stated = (facts.get("license_name") or facts.get("license")) if isinstance(facts, dict) else None
        if stated:
            return None if stated == PLACEHOLDER else str(stated)
    if card.is_file():
        facts = json.loads(card.read_text(encoding="utf-8"))
        stated = facts.get("licence") if isinstance(facts, dict) else None
        return " ".join(map(str, stated)) if isinstance(stated, list) else str(stated) if stated else None
    return None
