"""register(): put the plugin's solvers, model and loaders where AudioCraft looks for its own. Undone by unregister()."""
import dataclasses
import functools
import importlib
import sys
import types
import typing as tp
from pathlib import Path

from . import environment

_MISSING = object()
_undo: list[tuple[tp.Any, str, tp.Any]] = []


class _LazyTrain(types.ModuleType):
    """`audiocraft.train` that becomes `magnet_plugin.train` when it is first used: that one composes the configs."""

    def __getattr__(self, name: str) -> tp.Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(importlib.import_module("magnet_plugin.train"), name)


def register() -> None:
    """Take over AudioCraft's `magnet` and `audio_magnet` solvers, its `transformer_lm_magnet` model and `MAGNeT`;
    add the `hybrid_magnet` solver.

    Calling it again changes nothing. The global attention backend of AudioCraft is left alone.
    """
    if _undo:
        return
    environment.require_audiocraft()
    environment.register_resolvers()
    _register_defaults()
    environment.point_audiocraft_here()
    environment.provide_ffmpeg()
    import audiocraft
    lazy = _LazyTrain("audiocraft.train")
    _put(sys.modules, "audiocraft.train", lazy)
    _put(audiocraft, "train", lazy)
    try:
        _take_models()
        _take_loaders()
        _take_solvers()
    except BaseException:
        unregister()
        raise


def unregister() -> None:
    """Put back what `register()` replaced."""
    if not _undo:
        return
    _forbid_globals()
    while _undo:
        owner, name, value = _undo.pop()
        if isinstance(owner, dict):
            owner.pop(name, None) if value is _MISSING else owner.__setitem__(name, value)
        elif value is _MISSING:
            delattr(owner, name)
        else:
            setattr(owner, name, value)


def _register_defaults() -> None:
    """Make `${magnet.default:NAME}` and `${magnet.prompt_default:NAME}` known to OmegaConf: decoding defaults in configs."""
    from omegaconf import OmegaConf

    from .decoding.options import GenerationOptions, PromptOptions
    for resolver, options in (("magnet.default", GenerationOptions()), ("magnet.prompt_default", PromptOptions())):
        values = dataclasses.asdict(options)
        OmegaConf.register_new_resolver(
            resolver, lambda name, values=values: list(values[name]) if isinstance(values[name], tuple) else values[name],
            replace=True)


def _put(owner: tp.Any, name: str, value: tp.Any) -> None:
    """Set an attribute, or an entry of a dict, and remember what stood there."""
    if isinstance(owner, dict):
        _undo.append((owner, name, owner.get(name, _MISSING)))
        owner[name] = value
    else:
        _undo.append((owner, name, vars(owner).get(name, _MISSING)))
        setattr(owner, name, value)


def _take_models() -> None:
    from audiocraft import models
    from audiocraft.models import builders as upstream
    from audiocraft.models import lm_magnet, loaders, magnet

    from .models import builders
    from .models import lm_magnet as lm
    from .models import loaders as loading
    from .models import magnet as api
    for owner in (models, magnet):
        _put(owner, "MAGNeT", api.MAGNeT)
    for owner in (models, upstream, lm_magnet):
        _put(owner, "MagnetLMModel", lm.MagnetLMModel)
    _put(upstream, "get_lm_model", builders.get_lm_model)
    _put(upstream, "get_conditioner_provider", builders.get_conditioner_provider)
    for owner in (loaders, magnet):
        _put(owner, "load_lm_model_magnet", loading.load_magnet_lm)


def _take_loaders() -> None:
    """Checkpoints: safe loading on torch 2.6 and later, and the names //bundled/NAME and release folders."""
    import torch
    from audiocraft.models import CompressionModel
    from audiocraft.solvers.compression import CompressionSolver
    from audiocraft.utils import checkpoint

    from .models import checkpoints
    from .models import loaders as loading
    _put(checkpoint, "resolve_checkpoint_path", _resolver(checkpoint.resolve_checkpoint_path))
    _put(checkpoint, "load_checkpoint", _loader(checkpoint))
    _put(CompressionSolver, "model_from_checkpoint", staticmethod(_codec_loader(loading.load_codec)))
    # The bundled models' codec files refer to //bundled/codec-16khz, a name that AudioCraft would look up on the hub.
    get_pretrained = _with_bundled_codecs(CompressionModel.get_pretrained, loading.load_codec)
    _put(CompressionModel, "get_pretrained", staticmethod(get_pretrained))
    # AudioCraft calls torch.load itself in several places; what its checkpoints hold has to be allowed for those too.
    torch.serialization.add_safe_globals(checkpoints.SAFE_GLOBALS)


def _forbid_globals() -> None:
    import torch

    from .models import checkpoints
    ours = set(map(id, checkpoints.SAFE_GLOBALS))
    others = [item for item in torch.serialization.get_safe_globals() if id(item) not in ours]
    torch.serialization.clear_safe_globals()
    torch.serialization.add_safe_globals(others)


def _resolver(fallback: tp.Callable) -> tp.Callable:
    from .models import checkpoints

    @functools.wraps(fallback)
    def resolve(sig_or_path: tp.Union[str, Path], name: tp.Optional[str] = None, use_fsdp: bool = False
                ) -> tp.Optional[Path]:
        if name is not None or use_fsdp:         # one epoch's checkpoint, or one rank's shard
            return fallback(sig_or_path, name, use_fsdp)
        return checkpoints.resolve(sig_or_path)
    return resolve


def _loader(checkpoint: types.ModuleType) -> tp.Callable:
    from .models import checkpoints

    def load(checkpoint_path: Path, is_sharded: bool = False) -> tp.Any:
        if is_sharded:
            rank_zero = checkpoint_path.parent / checkpoint.checkpoint_name(use_fsdp=False)
            if rank_zero.exists():
                checkpoint.check_sharded_checkpoint(checkpoint_path, rank_zero)
        return checkpoints.load_as_checkpoint(checkpoint_path)
    return load


def _codec_loader(load_codec: tp.Callable) -> tp.Callable:
    def model_from_checkpoint(checkpoint_path: tp.Union[str, Path], device: tp.Any = "cpu") -> tp.Any:
        return load_codec(checkpoint_path, device)
    return model_from_checkpoint


def _with_bundled_codecs(fallback: tp.Callable, load_codec: tp.Callable) -> tp.Callable:
    @functools.wraps(fallback)
    def get_pretrained(name: tp.Union[str, Path], device: tp.Any = "cpu") -> tp.Any:
        return (load_codec if str(name).startswith("//bundled/") else fallback)(name, device)
    return get_pretrained


def _take_solvers() -> None:
    from audiocraft import solvers
    from audiocraft.solvers import base, magnet
    from audiocraft.solvers import builders as upstream

    from .distributed import fsdp
    from .solvers import builders
    from .solvers import magnet as solver
    get_solver = functools.partial(builders.get_solver, fallback=upstream.get_solver)
    for owner in (solvers, upstream):
        _put(owner, "get_solver", get_solver)
    _put(base, "model_hash", fsdp.model_hash)      # AudioCraft's cannot read weights in shards
    _put(magnet, "MagnetSolver", solver.MagnetSolver)
    _put(magnet, "AudioMagnetSolver", solver.AudioMagnetSolver)
