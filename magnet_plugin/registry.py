"""register() replaces parts of AudioCraft with the plugin's; unregister() restores them.

`_patches` is the table of everything that is replaced, with the reason for each entry.
"""
import functools
import importlib
import sys
import types
import typing as tp
from pathlib import Path

from . import environment

_MISSING = object()
_undo: list[tuple[tp.Any, str, tp.Any]] = []


class Patch(tp.NamedTuple):
    """One replacement.

    Attributes:
        owners: modules, classes or dicts whose entry `name` is replaced.
        name: attribute or key.
        value: the replacement.
        reason: what the replacement adds or repairs, and what would make it unnecessary.
    """
    owners: tuple[tp.Any, ...]
    name: str
    value: tp.Any
    reason: str


def register() -> None:
    """Replace AudioCraft's MAGNeT: its solvers, its language model, its API class and its loaders.

    Also adds the `hybrid_magnet` solver. Idempotent. AudioCraft's global attention backend is not changed.

    Raises:
        ModuleNotFoundError: AudioCraft is not installed.
    """
    if _undo:
        return
    environment.require_audiocraft()
    from .models.resolvers import register_resolvers
    register_resolvers()
    environment.point_audiocraft_here()
    environment.ensure_ffmpeg()
    try:
        _replace_train()
        for patch in _patches():
            for owner in patch.owners:
                _replace(owner, patch.name, patch.value)
    except BaseException:
        unregister()
        raise


def unregister() -> None:
    """Restore what `register()` replaced.

    OmegaConf's resolvers and the environment variables AUDIOCRAFT_CONFIG, USER and PATH keep what `register()` set.
    """
    if not _undo:
        return
    while _undo:
        owner, name, value = _undo.pop()
        if isinstance(owner, dict):
            owner.pop(name, None) if value is _MISSING else owner.__setitem__(name, value)
        elif value is _MISSING:
            delattr(owner, name)
        else:
            setattr(owner, name, value)


def _patches() -> list[Patch]:
    """The table of replacements. Versions refer to AudioCraft 1.3.0 and its public head, 1.4.0a2."""
    from audiocraft import models, solvers
    from audiocraft.models import builders, lm_magnet, loaders, magnet
    from audiocraft.quantization import core_vq
    from audiocraft.solvers import base
    from audiocraft.solvers import builders as solver_builders
    from audiocraft.solvers import magnet as solver_magnet
    from audiocraft.solvers.compression import CompressionSolver

    from .distributed import fsdp
    from .models import builders as our_builders
    from .models import codebooks
    from .models import loaders as our_loaders
    from .models import magnet as our_api
    from .models.lm_magnet import MagnetLMModel
    from .solvers import builders as our_solvers
    from .solvers import magnet as our_solver
    get_codec = _with_bundled_codecs(models.CompressionModel.get_pretrained, our_loaders.load_codec)
    get_solver = functools.partial(our_solvers.get_solver, fallback=solver_builders.get_solver)
    return [
        Patch((models, magnet), "MAGNeT", our_api.MAGNeT,
              "The plugin's API: any device, rescorers, hybrid models, seeds. Part of the plugin's purpose."),
        Patch((models, builders, lm_magnet), "MagnetLMModel", MagnetLMModel,
              "AudioCraft's model only runs with xformers on CUDA and fails for most lengths."),
        Patch((builders,), "get_lm_model", our_builders.get_lm_model,
              "Builds the plugin's MAGNeT and hybrid models. Unnecessary if AudioCraft had a registry of models."),
        Patch((builders,), "get_conditioner_provider", our_builders.get_conditioner_provider,
              "Adds the conditioner `words`. Unnecessary if AudioCraft had a registry of conditioners."),
        Patch((builders,), "get_encodec_autoencoder", our_builders.get_encodec_autoencoder,
              "Adds the autoencoder `stft`. Unnecessary if AudioCraft had a registry of autoencoders."),
        Patch((core_vq.EuclideanCodebook,), "replace_", codebooks.replace_dead_codes,
              "AudioCraft's replacement of unused entries is undone in the same step, and codebooks shrink."),
        Patch((loaders, magnet), "load_lm_model_magnet", our_loaders.load_magnet_lm,
              "AudioCraft's loader switches the attention backend of the whole process to xformers."),
        *_data_patches(),
        *_checkpoint_patches(),
        Patch((CompressionSolver,), "model_from_checkpoint", staticmethod(_codec_loader(our_loaders.load_codec)),
              "AudioCraft loads codecs with a plain torch.load, which fails for its own checkpoints since torch 2.6."),
        Patch((models.CompressionModel,), "get_pretrained", staticmethod(get_codec),
              "Codec files of bundled models refer to //bundled/codec-16khz, which AudioCraft looks up on the hub."),
        Patch((solver_builders,), "get_loss", functools.partial(our_solvers.get_loss, fallback=solver_builders.get_loss),
              "Adds the loss `spectral`. Unnecessary if AudioCraft had a registry of losses."),
        Patch((solvers, solver_builders), "get_solver", get_solver,
              "Adds the plugin's solvers and `cache.tokens`. Unnecessary if AudioCraft had a registry of solvers."),
        Patch((base,), "model_hash", fsdp.model_hash,
              "AudioCraft's hash of the weights cannot read the sharded tensors of `fully_shard`."),
        Patch((solver_magnet,), "MagnetSolver", our_solver.MagnetSolver, "For code that imports the class by name."),
        Patch((solver_magnet,), "AudioMagnetSolver", our_solver.AudioMagnetSolver, "Like MagnetSolver."),
    ]


def _data_patches() -> list[Patch]:
    """The part of the table that concerns reading audio."""
    from audiocraft.data import audio, audio_utils

    from .data.sound_files import to_float32
    return [
        Patch((audio_utils, audio), "f32_pcm", to_float32,
              "AudioCraft does not read 8-bit WAV files, and 64-bit ones stay in float64, which no codec takes."),
    ]


def _checkpoint_patches() -> list[Patch]:
    """The part of the table that concerns finding, loading and saving checkpoints."""
    from audiocraft.models import loaders
    from audiocraft.utils import checkpoint, export

    from .distributed import saving
    return [
        Patch((checkpoint,), "resolve_checkpoint_path", _resolver(checkpoint.resolve_checkpoint_path),
              "Adds //bundled/NAME and release folders to the names of checkpoints."),
        Patch((checkpoint,), "load_checkpoint", _loader(checkpoint),
              "Checkpoints with omegaconf objects do not load since torch 2.6 changed weights_only; loads them safely."),
        Patch((checkpoint,), "save_checkpoint", saving.save_checkpoint,
              "AudioCraft renames a checkpoint before it is on the disk; a crash of the machine can then lose both."),
        *(Patch((owner,), name, _safely(getattr(owner, name)), "Like load_checkpoint; torch.load changes only in the call.")
          for owner, name in ((export, "export_encodec"), (export, "export_lm"))),
        Patch((loaders,), "_get_state_dict", _state_dict_getter(loaders),
              "AudioCraft reports a file that is refused in many lines about weights_only, and reads configs unchecked."),
    ]


class _LazyTrain(types.ModuleType):
    """`audiocraft.train`, which imports `magnet_plugin.train` lazily, because importing it composes the Hydra config."""

    def __getattr__(self, name: str) -> tp.Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(importlib.import_module("magnet_plugin.train"), name)


def _replace_train() -> None:
    """Make `audiocraft.train` resolve to the plugin's: AudioCraft's own needs a config folder that its wheel lacks."""
    import audiocraft
    train = _LazyTrain("audiocraft.train")
    _replace(sys.modules, "audiocraft.train", train)
    _replace(audiocraft, "train", train)


def _replace(owner: tp.Any, name: str, value: tp.Any) -> None:
    """Set an attribute, or an entry of a dict, and remember the previous value."""
    if isinstance(owner, dict):
        _undo.append((owner, name, owner.get(name, _MISSING)))
        owner[name] = value
    else:
        _undo.append((owner, name, vars(owner).get(name, _MISSING)))
        setattr(owner, name, value)


def _resolver(fallback: tp.Callable) -> tp.Callable:
    from .models import checkpoints

    @functools.wraps(fallback)
    def resolve(sig_or_path: tp.Union[str, Path], name: tp.Optional[str] = None, use_fsdp: bool = False
                ) -> tp.Optional[Path]:
        if name is not None or use_fsdp:         # The checkpoint of one epoch, or the shard of one rank.
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


def _safely(function: tp.Callable) -> tp.Callable:
    """Let a function of AudioCraft, which calls torch.load, load what AudioCraft's checkpoints contain."""
    from .models.files import safe_globals

    @functools.wraps(function)
    def call(*args: tp.Any, **kwargs: tp.Any) -> tp.Any:
        with safe_globals():
            return function(*args, **kwargs)
    return call


def _state_dict_getter(loaders: types.ModuleType) -> tp.Callable:
    from .models import checkpoints

    @functools.wraps(fallback := _safely(loaders._get_state_dict))
    def get_state_dict(file_or_url_or_id: tp.Union[str, Path], filename: tp.Optional[str] = None, device: tp.Any = "cpu",
                       cache_dir: tp.Optional[str] = None) -> tp.Any:
        path = Path(file_or_url_or_id)
        if str(file_or_url_or_id).startswith("https://"):
            return fallback(file_or_url_or_id, filename, device, cache_dir)
        if path.is_dir() and filename is not None:
            path = path / filename
        elif not path.exists():
            path = Path(loaders.hf_hub_download(repo_id=str(file_or_url_or_id), filename=filename, library_name="audiocraft",
                                                cache_dir=cache_dir or loaders.get_audiocraft_cache_dir()))
        return checkpoints.load_checked(path, device)
    return get_state_dict


def _codec_loader(load_codec: tp.Callable) -> tp.Callable:
    def model_from_checkpoint(checkpoint_path: tp.Union[str, Path], device: tp.Any = "cpu") -> tp.Any:
        return load_codec(checkpoint_path, device)
    return model_from_checkpoint


def _with_bundled_codecs(fallback: tp.Callable, load_codec: tp.Callable) -> tp.Callable:
    @functools.wraps(fallback)
    def get_pretrained(name: tp.Union[str, Path], device: tp.Any = "cpu") -> tp.Any:
        return (load_codec if str(name).startswith("//bundled/") else fallback)(name, device)
    return get_pretrained
