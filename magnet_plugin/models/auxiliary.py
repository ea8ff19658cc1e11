"""Auxiliary models of a MAGNeT, rescorers and prompt models: loaded by name and checked to use the same tokens."""
import dataclasses
import threading
import typing as tp
from pathlib import Path

import torch
from audiocraft.models import CompressionModel
from audiocraft.models.builders import get_wrapped_compression_model
from audiocraft.models.genmodel import BaseGenModel
from audiocraft.models.lm import LMModel

from ..decoding.rescoring import Rescorer
from . import builders, checkpoints
from .conditions import check_text_only
from .loaders import Device, build_lm, load_codec, load_magnet_lm
from .prompt_models import PromptModel
from .rescorers import rescorer_of

Source = tp.Union[str, Path, BaseGenModel, LMModel]
TEXT = ("t5", "lut", "words")       # conditioners by the name of their config


@dataclasses.dataclass(frozen=True)
class TokenFormat:
    """What a model's tokens mean; None if unknown.

    Attributes:
        codebooks: number of codebooks K.
        cardinality: number of entries of each codebook.
        frame_rate: frames per second.
        sample_rate: sample rate of the audio in Hz.
        channels: number of audio channels.
        entries: vectors of each codebook, [cardinality, dim].
    """
    codebooks: int
    cardinality: int
    frame_rate: tp.Optional[float] = None
    sample_rate: tp.Optional[int] = None
    channels: tp.Optional[int] = None
    entries: tuple[torch.Tensor, ...] = ()

    @staticmethod
    def of_codec(codec: CompressionModel, n_q: tp.Optional[int] = None, card: tp.Optional[int] = None) -> "TokenFormat":
        """Describe a codec's tokens, or those of a language model on it with `n_q` codebooks of `card` entries."""
        embeddings = [value for key, value in codec.state_dict().items() if key.endswith("codebook.embed")]
        return TokenFormat(codec.num_codebooks if n_q is None else n_q, codec.cardinality if card is None else card,
                      float(codec.frame_rate), int(codec.sample_rate), int(codec.channels), tuple(embeddings))


def check_token_format(theirs: TokenFormat, ours: TokenFormat, name: str) -> None:
    """Raise ValueError, listing every difference, unless tokens of both formats mean the same."""
    fields = (("codebooks", "codebooks", ""), ("cardinality", "cardinality", ""), ("frame_rate", "frame rate", "/s"),
              ("sample_rate", "sample rate", " Hz"), ("channels", "channels", ""))
    pairs = [(word, unit, getattr(theirs, field), getattr(ours, field)) for field, word, unit in fields]
    wrong = [f"{word} {a:g}{unit} instead of {b:g}{unit}" for word, unit, a, b in pairs if None not in (a, b) and a != b]
    if not wrong and not _same_entries(theirs.entries, ours.entries, ours.codebooks):
        wrong = ["codebook vectors differ"]
    if wrong:
        raise ValueError(f"{name} and this MAGNeT do not share a codec ({'; '.join(wrong)}); use a model trained on this "
                         "MAGNeT's codec")


def _same_entries(theirs: tp.Sequence[torch.Tensor], ours: tp.Sequence[torch.Tensor], codebooks: int) -> bool:
    """Whether the codebooks hold the same vectors up to float16 rounding; True if either side has none."""
    return all(a.shape == b.shape and torch.allclose(a.float().cpu(), b.float().cpu(), rtol=1e-2, atol=1e-3)
               for a, b in list(zip(theirs, ours))[:codebooks])


@dataclasses.dataclass(frozen=True)
class AuxiliaryModel:
    """A language model with the same tokens as a MAGNeT.

    Attributes:
        lm: the model, in evaluation mode.
        name: the name it was loaded by, or the model's own.
        params: its generation settings, if it has any (MusicGen's and AudioGen's `set_generation_params`).
    """
    lm: LMModel
    name: str
    params: dict[str, tp.Any]


def load_auxiliary(source: Source, codec: CompressionModel, device: Device, role: str) -> AuxiliaryModel:
    """Load an auxiliary model and check that it fits.

    Args:
        source: a name (hub, `//sig/SIG`, `//bundled/NAME`), a release folder or a checkpoint; or a model: a MusicGen,
            AudioGen or MAGNeT, or an `LMModel`, whose codec is only known by its shape.
        codec: the MAGNeT's codec.
        device: the MAGNeT's device.
        role: the setting's name, for errors: "rescorer".
    Raises:
        ValueError: nothing is found, the codec differs (all differences are listed), or the device differs.
    """
    if isinstance(source, (str, Path)):
        return _load(str(source), codec, device, role)
    if isinstance(source, BaseGenModel):
        lm, name, params = source.lm, str(source.name), dict(source.generation_params)
        tokens = TokenFormat.of_codec(source.compression_model, lm.n_q, lm.card)
    elif isinstance(source, LMModel):
        lm, name, params = source, type(source).__name__, {}
        rate, cfg = getattr(lm, "frame_rate", None), getattr(lm, "cfg", None)
        tokens = TokenFormat(lm.n_q, lm.card, None if rate is None else float(rate),
                             *((None, None) if cfg is None else (cfg.sample_rate, cfg.channels)))
    else:
        raise ValueError(f"{role} must be a name, a folder or a model (MusicGen, AudioGen, MAGNeT, LMModel), not "
                         f"{type(source).__name__}")
    own_name, name = name, f"{role} {name}"
    check_text_only(lm.condition_provider.conditioners, lm.condition_provider.text_conditions, name)
    check_token_format(tokens, TokenFormat.of_codec(codec), name)
    where = next(lm.parameters()).device
    if where.type != torch.device(device).type:
        raise ValueError(f"{name} is on {where}, but the MAGNeT on {device}; load both on the same device")
    return AuxiliaryModel(lm, own_name, params)


def _load(source: str, codec: CompressionModel, device: Device, role: str) -> AuxiliaryModel:
    """Load by name. The codecs are compared before the language model is built."""
    name = f"{role} {source}"
    try:
        package = checkpoints.load_package(source, checkpoints.LM_FILE)
    except OSError as error:                        # The hub's client does not name the model.
        raise ValueError(f"{name} cannot be loaded; check the name and the network, or give a local folder") from error
    cfg = package["xp.cfg"]
    if "transformer_lm" not in cfg or "lm_model" not in cfg:
        raise ValueError(f"{name} is not a language model; use a MusicGen, an AudioGen or a MAGNeT")
    kinds = {key: value.model for key, value in (cfg.get("conditioners") or {}).items() if key != "args"}
    check_text_only(kinds, [key for key, kind in kinds.items() if kind in TEXT], name)
    one_channel = load_codec(source)
    rate = one_channel.frame_rate
    theirs = get_wrapped_compression_model(one_channel, cfg)
    check_token_format(TokenFormat.of_codec(theirs, cfg.transformer_lm.n_q, cfg.transformer_lm.card),
                       TokenFormat.of_codec(codec), name)
    if cfg.lm_model == builders.MAGNET_LM or builders.is_hybrid(cfg):
        return AuxiliaryModel(load_magnet_lm(source, rate, device), source, {})
    return AuxiliaryModel(build_lm(package, source, device), source, {})


def load_rescorer(source: Source, codec: CompressionModel, device: Device = "cpu", engine: str = "auto") -> Rescorer:
    """Load a model as a rescorer; arguments and errors are those of `load_auxiliary`; `engine`: see `CausalRescorer`."""
    return AuxiliaryModels(codec, device).rescorer(source, engine)


def load_prompt_model(source: Source, codec: CompressionModel, device: Device = "cpu", engine: str = "auto") -> PromptModel:
    """Load a causal model as a prompt model; arguments and errors are those of `load_auxiliary`; `engine`: see the model."""
    return AuxiliaryModels(codec, device).prompt_model(source, engine)


class AuxiliaryModels:
    """The auxiliary models of one MAGNeT. A name that is used twice, or in two roles, is loaded once.

    Args:
        codec: the MAGNeT's codec.
        device: the MAGNeT's device.
    """

    def __init__(self, codec: CompressionModel, device: Device) -> None:
        self.codec = codec
        self.device = device
        self._loaded: dict[str, AuxiliaryModel] = {}
        self._lock = threading.RLock()

    def rescorer(self, source: Source, engine: str = "auto") -> Rescorer:
        """See `load_rescorer`."""
        model = self._get(source, "rescorer")
        return rescorer_of(model.lm, f"rescorer {model.name}", engine)

    def prompt_model(self, source: Source, engine: str = "auto") -> PromptModel:
        """See `load_prompt_model`."""
        model = self._get(source, "prompt_model")
        return PromptModel(model.lm, f"prompt_model {model.name}", model.params, engine)

    def _get(self, source: Source, role: str) -> AuxiliaryModel:
        if not isinstance(source, (str, Path)):
            return load_auxiliary(source, self.codec, self.device, role)
        with self._lock:
            if str(source) not in self._loaded:
                self._loaded[str(source)] = load_auxiliary(source, self.codec, self.device, role)
            return self._loaded[str(source)]
