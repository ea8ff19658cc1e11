"""Load codecs and language models by name, ready for inference."""
import logging
import typing as tp
from pathlib import Path

import torch
from audiocraft.models import CompressionModel
from audiocraft.models import builders as upstream
from audiocraft.models.lm import LMModel
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from . import builders, checkpoints
from .lm_magnet import MagnetLMModel
from .stereo import frames_in_turn_of
from .untrusted import check_codec_sizes, check_sizes

logger = logging.getLogger(__name__)
Device = tp.Union[str, torch.device]


def load_codec(name: tp.Union[str, Path], device: Device = "cpu") -> CompressionModel:
    """Load the codec of a model: of a release folder, a run (`//sig/SIG`), a bundled or a published model.

    The codec of a stereo model is returned for one channel, as AudioCraft's loader does.

    Raises:
        ValueError: nothing is found under this name, or the weights do not fit.
    """
    return _load_codec(name, device, ())


def _load_codec(name: tp.Union[str, Path], device: Device, via: tuple[str, ...]) -> CompressionModel:
    """Load a codec that models named `via` refer to."""
    if str(name).startswith("//pretrained/"):
        return CompressionModel.get_pretrained(str(name).removeprefix("//pretrained/"), device=device)
    if str(name) in via:
        raise ValueError(f"{name} refers to itself as its codec (compression_model_checkpoint); give a model with a codec")
    package = checkpoints.load_package(name, checkpoints.CODEC_FILE)
    if "pretrained" in package:
        return CompressionModel.get_pretrained(package["pretrained"], device=device)
    cfg = package["xp.cfg"]
    if "compression_model_checkpoint" in cfg:              # A language model's run names its codec.
        return _load_codec(cfg.compression_model_checkpoint, device, (*via, str(name)))
    check_codec_sizes(cfg, name)
    with torch.device("meta"):              # Sizes that do not fit the weights are found before memory is allocated.
        shapes = _build_from(upstream.get_compression_model, builders.for_inference(cfg, "meta"), name)
    checkpoints.check_weights(shapes, package["best_state"], name)
    codec = _built(upstream.get_compression_model, builders.for_inference(cfg, device), package, name)
    return codec.eval()


def _built(build: tp.Callable[[DictConfig], tp.Any], cfg: DictConfig, package: dict[str, tp.Any],
           name: tp.Union[str, Path]) -> tp.Any:
    """Build a model from the config of a file and load its weights.

    Raises:
        ValueError: the config lacks settings or has senseless ones, or does not describe the weights.
    """
    model = _build_from(build, cfg, name)
    checkpoints.load_weights(model, package["best_state"], name)
    return model


def _build_from(build: tp.Callable[[DictConfig], tp.Any], cfg: DictConfig, name: tp.Union[str, Path]) -> tp.Any:
    """Build a model from the config of a file.

    Raises:
        ValueError: the config lacks settings or has senseless ones.
    """
    try:
        return build(cfg)
    except torch.OutOfMemoryError:          # a RuntimeError, but the device's fault
        raise
    except (AttributeError, TypeError, LookupError, AssertionError, RuntimeError, ArithmeticError, OmegaConfBaseException,
            MemoryError) as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        raise ValueError(f"{name}: no model can be built from its config ({reason}); get the file again from its source"
                         ) from None


def load_magnet_lm(name: tp.Union[str, Path], compression_model_frame_rate: float, device: Device = "cpu",
                   cache_dir: tp.Optional[str] = None) -> MagnetLMModel:
    """Load a MAGNeT with its config at `.cfg`; the arguments are those of AudioCraft's `load_lm_model_magnet`.

    The frame rate is that of one channel, as `load_codec` returns the codec.

    A hybrid model that was trained by other code, whose config does not describe its columns, is loaded with a warning.

    Raises:
        ValueError: nothing is found under this name, it is not a MAGNeT, or the weights do not fit.
    """
    package = checkpoints.load_package(name, checkpoints.LM_FILE)
    cfg = builders.for_inference(package["xp.cfg"], device)
    if cfg.get("lm_model") != builders.MAGNET_LM and not builders.is_hybrid(cfg):
        raise ValueError(f"{name} has lm_model={cfg.get('lm_model')!r}, which is not a MAGNeT ({builders.MAGNET_LM}); load "
                         "it with AudioCraft's MusicGen or AudioGen")
    rate = float(compression_model_frame_rate) * frames_in_turn_of(cfg)            # EnCodec returns a NumPy number.
    cfg.transformer_lm.compression_model_framerate = rate
    return tp.cast(MagnetLMModel, _build(cfg, package, name))


def build_lm(package: dict[str, tp.Any], name: tp.Union[str, Path], device: Device = "cpu") -> LMModel:
    """Build an AudioCraft language model, such as MusicGen's, from a loaded package; its config is at `.cfg`.

    Args:
        package: result of `checkpoints.load_package`.
        name: for errors.
        device: where to put the model.
    Raises:
        ValueError: the weights do not fit.
    """
    return _build(builders.for_inference(package["xp.cfg"], device), package, name)


def _build(cfg: DictConfig, package: dict[str, tp.Any], name: tp.Union[str, Path]) -> LMModel:
    check_sizes(cfg, package["best_state"], name)
    lm = _built(builders.get_lm_model, cfg, package, name)
    if builders.is_hybrid(cfg) and "hybrid" not in cfg:
        logger.warning("%s is a hybrid model that was not trained by this plugin. Its weights fit, but its config does not "
                       "describe how it combines both ways of decoding. It is decoded with this plugin's layout "
                       "(magnet_plugin/modules/hybrid_layout.py), which may differ from that of its training.", name)
    lm.eval()
    OmegaConf.set_struct(cfg, True)
    lm.__dict__["cfg"] = cfg
    return lm
