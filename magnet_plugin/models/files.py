"""The files that hold weights: torch's format, of which only harmless content is loaded, and safetensors."""
import collections
import contextlib
import pickle
import re
import threading
import typing as tp
from pathlib import Path

import omegaconf
import safetensors
import torch
from omegaconf import DictConfig, OmegaConf
from safetensors.torch import save_file

from .. import __version__
from ..environment import atomic_write
from .untrusted import check_archive

SAFETENSORS = ".safetensors"


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


def load(path: tp.Union[str, Path], device: str = "cpu") -> tp.Any:
    """Load a file with torch, accepting only tensors and `SAFE_GLOBALS`; or a safetensors file (see `write_safetensors`).

    Args:
        path: the file.
        device: `cpu`, or `meta` to read the shapes of tensors without their values.
    Raises:
        ValueError: the file contains anything else, or is not a checkpoint.
    """
    if Path(path).suffix == SAFETENSORS:
        return load_safetensors(path)
    check_archive(path)
    try:
        with safe_globals():
            return torch.load(path, map_location=device, weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, LookupError, ValueError, TypeError, AttributeError,
            MemoryError) as error:
        found = re.search(r"GLOBAL (\S+)", str(error))
        reason = f"it contains {found[1]}, an object type that is not allowed" if found else \
            "it is not a checkpoint, or is truncated"
        raise ValueError(f"{path} cannot be loaded safely: {reason}; no code in it was run; get it again from its source"
                         ) from None          # torch's own text has many lines about weights_only


def load_safetensors(path: tp.Union[str, Path]) -> dict[str, tp.Any]:
    """Load a file that `write_safetensors` has written, as the package that it was made from.

    Raises:
        ValueError: it is damaged, or was written by another program.
    """
    try:
        with safetensors.safe_open(str(path), framework="pt") as file:
            package: dict[str, tp.Any] = dict(file.metadata() or {})
            names = file.keys()
            state = {name: file.get_tensor(name) for name in names}
    except (safetensors.SafetensorError, OSError) as error:
        raise ValueError(f"{path} cannot be loaded: {error}; get it again from its source") from error
    if "pretrained" in package:
        return package
    if "xp.cfg" not in package:
        raise ValueError(f"{path} holds weights without their config (no xp.cfg in its metadata); give a file that `magnet "
                         "export` has written")
    return {**package, "best_state": state}


def write_safetensors(package: tp.Mapping[str, tp.Any], path: Path) -> None:
    """Write the content of a release file as safetensors: the weights as tensors, all other text as metadata."""
    state = {key: value.contiguous() for key, value in package.get("best_state", {}).items()}
    metadata = {"format": "pt", **{key: str(value) for key, value in package.items() if key != "best_state"}}
    with atomic_write(path, durable=True) as temporary:
        save_file(state, temporary, metadata)


def release(best_state: dict[str, torch.Tensor], cfg: DictConfig, path: Path, half: bool = False) -> None:
    """Write one file of a release folder, in float16 with `half`."""
    if half:
        best_state = {key: value.half() if value.is_floating_point() else value for key, value in best_state.items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path, durable=True) as temporary:
        torch.save({"best_state": {key: value.detach().cpu().clone() for key, value in best_state.items()},
                    "xp.cfg": OmegaConf.to_yaml(cfg), "version": __version__, "exported": True}, temporary)


def write_reference(name: str, path: Path) -> None:
    """Write a codec file that refers to another codec: a name on the hub, or `//bundled/NAME`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path, durable=True) as temporary:
        torch.save({"pretrained": name, "exported": True, "version": __version__}, temporary)
