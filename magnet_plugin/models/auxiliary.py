"""Models that work beside a MAGNeT, a rescorer or a prompt model: found by name, and seen to speak the same tokens."""
import dataclasses
import typing as tp
from pathlib import Path

import torch
from audiocraft.models import CompressionModel
from audiocraft.models.builders import get_wrapped_compression_model
from audiocraft.models.genmodel import BaseGenModel
from audiocraft.models.lm import LMModel
from audiocraft.modules.conditioners import ConditioningAttributes

from ..decoding.rescoring import Rescorer
from . import builders, checkpoints
from .conditions import check_text_only
from .lm_magnet import frames
from .loaders import Device, build_lm, load_codec, load_magnet_lm
from .prompt_models import PromptWriter
from .rescorers import rescorer_of

Source = tp.Union[str, Path, BaseGenModel, LMModel]
TEXT = ("t5", "lut", "words")       # conditioners by the name of their config


@dataclasses.dataclass(frozen=True)
class Tokens:
    """What a model's tokens mean; None where it does not say.

    Attributes:
        codebooks: their number K.
        cardinality: entries of each.
        frame_rate: frames per second.
        sample_rate: of the audio, Hz.
        entries: the codebooks themselves, [cardinality, dim] each.
    """
    codebooks: int
    cardinality: int
    frame_rate: tp.Optional[float] = None
    sample_rate: tp.Optional[int] = None
    entries: tuple[torch.Tensor, ...] = ()

    @staticmethod
    def of_codec(codec: CompressionModel, n_q: tp.Optional[int] = None, card: tp.Optional[int] = None) -> "Tokens":
        """Those of a codec, and of the language model with `n_q` codebooks of `card` entries on it."""
        embeddings = [value for key, value in codec.state_dict().items() if key.endswith("codebook.embed")]
        return Tokens(codec.num_codebooks if n_q is None else n_q, codec.cardinality if card is None else card,
                      float(codec.frame_rate), int(codec.sample_rate), tuple(embeddings))


def check_tokens(theirs: Tokens, ours: Tokens, name: str) -> None:
    """Raise ValueError, with every difference, unless both sides' tokens mean the same."""
    fields = (("codebooks", "codebooks", ""), ("cardinality", "cardinality", ""), ("frame_rate", "frame rate", "/s"),
              ("sample_rate", "sample rate", " Hz"))
    pairs = [(word, unit, getattr(theirs, field), getattr(ours, field)) for field, word, unit in fields]
    wrong = [f"{word} {a:g}{unit} there, {b:g}{unit} here" for word, unit, a, b in pairs if None not in (a, b) and a != b]
    if not wrong and not _same_entries(theirs.entries, ours.entries, ours.codebooks):
        wrong = ["codebooks of the same size with other entries (the weights of another codec)"]
    if wrong:
        raise ValueError(f"{name} and this MAGNeT do not share a codec: {'; '.join(wrong)}. Use a model trained on this "
                         "MAGNeT's codec")


def _same_entries(theirs: tp.Sequence[torch.Tensor], ours: tp.Sequence[torch.Tensor], codebooks: int) -> bool:
    """Whether the codebooks hold the same vectors, up to storage in float16; True where either side shows none."""
    return all(a.shape == b.shape and torch.allclose(a.float().cpu(), b.float().cpu(), rtol=1e-2, atol=1e-3)
               for a, b in list(zip(theirs, ours))[:codebooks])


@dataclasses.dataclass(frozen=True)
class Partner:
    """A language model whose tokens are this MAGNeT's.

    Attributes:
        lm: in evaluation mode.
        name: as it was given, or the model's own.
        params: how it generates, where it came with such settings (MusicGen's and AudioGen's `set_generation_params`).
    """
    lm: LMModel
    name: str
    params: dict[str, tp.Any]


def load_partner(source: Source, codec: CompressionModel, device: Device, role: str) -> Partner:
    """A model to work beside a MAGNeT.

    Args:
        source: a name (hub, `//sig/SIG`, `//bundled/NAME`), a release folder or a checkpoint, or a model: MusicGen,
            AudioGen or MAGNeT, or an `LMModel`, of whose codec only the shape is known.
        codec: the MAGNeT's.
        device: where the MAGNeT is.
        role: the setting's name, for errors: "rescorer".
    Raises:
        ValueError: nothing is there, its codec is another one (all differences are named), or it is on another device.
    """
    if isinstance(source, (str, Path)):
        return _load(str(source), codec, device, role)
    if isinstance(source, BaseGenModel):
        lm, name, params = source.lm, str(source.name), dict(source.generation_params)
        tokens = Tokens.of_codec(source.compression_model, lm.n_q, lm.card)
    elif isinstance(source, LMModel):
        lm, name, params = source, type(source).__name__, {}
        rate, cfg = getattr(lm, "frame_rate", None), getattr(lm, "cfg", None)
        tokens = Tokens(lm.n_q, lm.card, None if rate is None else float(rate), None if cfg is None else cfg.sample_rate)
    else:
        raise ValueError(f"{role} must be a name, a folder or a model (MusicGen, AudioGen, MAGNeT, LMModel), not "
                         f"{type(source).__name__}")
    plain, name = name, f"{role} {name}"
    check_text_only(lm.condition_provider.conditioners, lm.condition_provider.text_conditions, name)
    check_tokens(tokens, Tokens.of_codec(codec), name)
    where = next(lm.parameters()).device
    if where.type != torch.device(device).type:
        raise ValueError(f"{name} is on {where}, but the MAGNeT on {device}; load both on the same device")
    return Partner(lm, plain, params)


def _load(source: str, codec: CompressionModel, device: Device, role: str) -> Partner:
    """By name. The codecs are compared before the language model is built."""
    name = f"{role} {source}"
    package = checkpoints.load_package(source, checkpoints.LM_FILE)
    cfg = package["xp.cfg"]
    if "transformer_lm" not in cfg or "lm_model" not in cfg:
        raise ValueError(f"{name} holds no language model, but a codec or another model; give a MusicGen, an AudioGen or a "
                         "MAGNeT")
    kinds = {key: value.model for key, value in (cfg.get("conditioners") or {}).items() if key != "args"}
    check_text_only(kinds, [key for key, kind in kinds.items() if kind in TEXT], name)
    theirs = get_wrapped_compression_model(load_codec(source), cfg)
    check_tokens(Tokens.of_codec(theirs, cfg.transformer_lm.n_q, cfg.transformer_lm.card), Tokens.of_codec(codec), name)
    if cfg.lm_model == builders.MAGNET_LM or builders.is_hybrid(cfg):
        return Partner(load_magnet_lm(source, codec.frame_rate, device), source, {})
    return Partner(build_lm(package, source, device), source, {})


def load_rescorer(source: Source, codec: CompressionModel, device: Device = "cpu") -> Rescorer:
    """A model as rescorer; arguments and errors of `load_partner`."""
    return Partners(codec, device).rescorer(source)


def load_prompt_model(source: Source, codec: CompressionModel, device: Device = "cpu") -> PromptWriter:
    """A model that writes the first seconds; arguments and errors of `load_partner`, and it has to be causal."""
    return Partners(codec, device).prompt_writer(source)


class Partners:
    """The models beside one MAGNeT. What is named twice, or in two roles, is loaded once.

    Args:
        codec: the MAGNeT's.
        device: where the MAGNeT is.
    """

    def __init__(self, codec: CompressionModel, device: Device) -> None:
        self.codec = codec
        self.device = device
        self._loaded: dict[str, Partner] = {}

    def rescorer(self, source: Source) -> Rescorer:
        """See `load_rescorer`."""
        partner = self._get(source, "rescorer")
        return rescorer_of(partner.lm, f"rescorer {partner.name}")

    def prompt_writer(self, source: Source) -> PromptWriter:
        """See `load_prompt_model`."""
        partner = self._get(source, "prompt_model")
        return PromptWriter(partner.lm, f"prompt_model {partner.name}", partner.params)

    def _get(self, source: Source, role: str) -> Partner:
        if not isinstance(source, (str, Path)):
            return load_partner(source, self.codec, self.device, role)
        if str(source) not in self._loaded:
            self._loaded[str(source)] = load_partner(source, self.codec, self.device, role)
        return self._loaded[str(source)]


class ClipWriter:
    """An autoregressive model by itself, with `MAGNeT.generate`'s arguments: one seed, whole clips.

    Attributes:
        compression_model: the codec.
        sample_rate: of the audio, Hz.
        duration: seconds of a clip.
    """

    def __init__(self, writer: PromptWriter, codec: CompressionModel, duration: float) -> None:
        self.lm, self._writer, self.compression_model = writer.lm, writer, codec
        self.sample_rate, self.duration = int(codec.sample_rate), duration

    @staticmethod
    def load(source: tp.Union[str, Path], device: Device = "cpu") -> "ClipWriter":
        """A MusicGen or AudioGen by name, with its own codec and the length that it was trained on; errors of
        `load_partner`."""
        codec = load_codec(source, device)
        writer = load_prompt_model(source, codec, device)
        return ClipWriter(writer, codec, float(tp.cast(tp.Any, writer.lm).cfg.dataset.segment_duration))

    @torch.no_grad()
    def generate(self, descriptions: tp.Sequence[str], return_tokens: bool = False, *, seed: tp.Optional[int] = None
                 ) -> tp.Any:
        """Audio [B, channels, samples] from one text per sample, and tokens [B, K, T] if asked for."""
        conditions = [ConditioningAttributes(text={"description": text}) for text in descriptions]
        length = frames(self.duration, float(self.compression_model.frame_rate))
        tokens = self._writer.write(conditions, len(conditions), length, seed)
        audio = self.compression_model.decode(tokens)
        return (audio, tokens) if return_tokens else audio
