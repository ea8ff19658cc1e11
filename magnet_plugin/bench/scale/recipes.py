"""From the overrides of a `dora run` to the sizes that its cost depends on. Models are built without memory (torch's meta
device), so that every count is the real model's."""
from __future__ import annotations

import dataclasses
import functools
import typing as tp

import torch
from torch.utils.flop_counter import FlopCounterMode

from .costs import Shape
from .meter import Meter

#: Encoders of published T5 models: d_model, d_ff, layers, heads, d_kv (their config.json on the hub). 32128 tokens.
T5 = {"t5-small": (512, 2048, 6, 8, 64), "t5-base": (768, 3072, 12, 12, 64), "t5-large": (1024, 4096, 24, 16, 64)}
#: Codecs by checkpoint, as overrides of `solver=compression/tiny_16khz`. Those of AudioCraft: its
#: config/model/encodec/encodec_large_nq4_s640.yaml (MusicGen) and encodec_large_nq4_s320.yaml (AudioGen).
_LARGE = ("seanet.n_filters=64", "seanet.dimension=128", "seanet.lstm=2", "rvq.n_q=4", "rvq.bins=2048")
CODECS: dict[str, tuple[str, ...]] = {
    "//pretrained/facebook/encodec_32khz": (*_LARGE, "seanet.ratios=[8,5,4,4]", "sample_rate=32000"),
    "//reference/bd44a852/checkpoint.th": (*_LARGE, "seanet.ratios=[8,5,4,2]", "sample_rate=16000"),
    "//bundled/codec-16khz": (),
}
#: What the formulas of `costs.py` are for.
ASSUMED = {"norm_first": True, "bias_ff": False, "bias_attn": False, "bias_proj": False, "dropout": 0, "layer_scale": None,
           "positional_embedding": "sin", "kv_repeat": 1, "attention_as_float32": False, "qk_layer_norm": False,
           "qk_layer_norm_cross": False, "activation": "gelu"}


@dataclasses.dataclass(frozen=True)
class Frozen:
    """A model that is only run forward, in float32.

    Attributes:
        held: bytes of its weights, and of what it keeps between calls.
        flops, moved, peak: of one clip: FLOPs of products, bytes moved by the rest, most bytes at a time.
        recurrent: frames that are computed one after the other, times layers.
    """
    held: float = 0.0
    flops: float = 0.0
    moved: float = 0.0
    peak: float = 0.0
    recurrent: int = 0


@dataclasses.dataclass(frozen=True)
class Recipe:
    """What a config asks for, in numbers.

    Attributes:
        shape: the transformer.
        units: sizes of the trained parameters, by the modules that FSDP wraps: the rest of the model, each layer, the
            conditioner.
        text, codec: what runs without gradient before the transformer.
        batch: clips over all ranks.
        seconds: of a clip.
        optimizer: its name in `optim.optimizer`.
        ema_every: updates between two of the moving average; 0 without one.
        clips: whether gradients are clipped.
        accumulate: parts of a rank's batch.
        eager: gradients are reduced while the backward pass goes on.
        precision: of matrix products.
        fsdp: `fsdp.sharding_strategy`, empty without FSDP.
        reduce: bytes of a number in FSDP's reduction.
    """
    shape: Shape
    units: tuple[tuple[int, ...], ...]
    text: Frozen
    codec: Frozen
    batch: int
    seconds: float
    optimizer: str
    ema_every: int
    clips: bool
    accumulate: int
    eager: bool
    precision: str
    fsdp: str
    reduce: int

    @property
    def parameters(self) -> int:
        return sum(map(sum, self.units))

    @property
    def tensors(self) -> int:
        return sum(map(len, self.units))


def compose(overrides: tp.Sequence[str]) -> tp.Any:
    """The config of `dora run OVERRIDES`.

    Raises:
        ValueError: there is no such group or setting.
    """
    from hydra.errors import HydraException

    from ...train import main
    try:
        return main._get_config(list(overrides))
    except HydraException as error:
        raise ValueError(f"dora run {' '.join(overrides)}: {' '.join(str(error).split())[:300]}") from None


def settings(solver: str, scale: tp.Optional[str], precision: tp.Optional[str], fsdp: bool, more: tp.Sequence[str] = ()
             ) -> list[str]:
    """Overrides of a run on GPUs. With FSDP, its `param_dtype` takes autocast's place."""
    found = [f"solver={solver}", *([f"model_scale={scale}"] if scale else []), "device=meta", *more]
    if fsdp:
        return [*found, "fsdp.use=true", "autocast=false", *([f"fsdp.param_dtype={precision}"] if precision else [])]
    if precision == "float32":
        return [*found, "autocast=false"]
    return [*found, "autocast=true", *([f"autocast_dtype={precision}"] if precision else [])]


def read(overrides: tp.Sequence[str], text_tokens: int) -> Recipe:
    """The recipe of a run.

    Args:
        overrides: those of `settings`.
        text_tokens: length of captions.
    Raises:
        ValueError: the run is none of MAGNeT's, or has a setting that the formulas are not for.
    """
    from ...models.builders import get_sharding
    cfg = compose(overrides)
    get_sharding(cfg)                              # what cannot be run is not computed either
    if cfg.get("lm_model") != "transformer_lm_magnet" or "magnet" not in cfg.solver or "hybrid" in cfg.solver:
        raise ValueError(f"--solver: {cfg.solver} is not one of MAGNeT's; choose magnet/magnet_32khz, "
                         "magnet/audio_magnet_16khz, or another of config/solver/magnet but the hybrids")
    lm = cfg.transformer_lm
    for name, value in ASSUMED.items():
        if name in lm and lm[name] != value:
            raise ValueError(f"transformer_lm.{name}={lm[name]}: the simulation is for {value} alone")
    if lm.checkpointing not in ("none", "torch"):
        raise ValueError(f"transformer_lm.checkpointing={lm.checkpointing}: the simulation knows none and torch")
    text, words, text_dim = text_of(cfg, text_tokens)
    model = build(tuple(overrides), text_dim if not words else 0)
    seconds = float(cfg.dataset.segment_duration)
    shape = Shape(lm.dim, lm.num_heads, lm.num_layers, int(lm.hidden_scale * lm.dim), lm.n_q, lm.card, model.segment_frames,
                  lm.subcodes_context, text_dim, words, lm.checkpointing == "torch")
    optim, train = cfg.optim, cfg.dataset.get("train") or {}
    ema = optim.ema.updates if optim.ema.use else 0
    precision = cfg.fsdp.param_dtype if cfg.fsdp.use else cfg.autocast_dtype if cfg.autocast else "float32"
    return Recipe(shape, units_of(model, cfg.fsdp.per_block), text, codec_of(cfg.compression_model_checkpoint, seconds),
                  train.get("batch_size") or cfg.dataset.batch_size, seconds, optim.optimizer, ema, bool(optim.max_norm),
                  optim.accumulate, bool(optim.eager_sync), precision, cfg.fsdp.sharding_strategy if cfg.fsdp.use else "",
                  getattr(torch, cfg.fsdp.reduce_dtype).itemsize)


def build(overrides: tuple[str, ...], text_dim: int) -> tp.Any:
    """The language model on the meta device. A frozen text encoder is left out and its projection kept: `text_dim` is
    what it reads, 0 for conditioners that are trained."""
    from audiocraft.models import builders
    table = f"{{model: words, words: {{n_bins: 1, dim: {text_dim}}}}}"
    words = ["~conditioners.description", f"+conditioners.description={table}"] if text_dim else []
    with torch.device("meta"):
        model = builders.get_lm_model(compose([*overrides, *words]))
    if text_dim:
        del model.condition_provider.conditioners["description"].embed
    return model


def units_of(model: tp.Any, per_block: bool) -> tuple[tuple[int, ...], ...]:
    """Sizes of the parameters by the modules that are sharded, one at a time or all at once.

    The conditioner, less than a hundredth of the weights, stays whole (sharding.py) and is counted as if it did not.
    """
    inner = [*model.transformer.layers, model.condition_provider] if per_block else []
    seen = {id(p) for module in inner for p in module.parameters()}
    rest = tuple(p.numel() for p in model.parameters() if id(p) not in seen)
    return rest, *(sizes for module in inner if (sizes := tuple(p.numel() for p in module.parameters())))


def text_of(cfg: tp.Any, tokens: int) -> tuple[Frozen, bool, int]:
    """The text encoder that is run without gradient, whether it is trained instead, and the channels it gives."""
    if not cfg.conditioners:
        return Frozen(), False, 0
    if list(cfg.conditioners) != ["description"] or list(cfg.fuser.cross) != ["description"]:
        raise ValueError(f"conditioners {sorted(cfg.conditioners)}: the simulation is for one text in cross-attention")
    text = cfg.conditioners.description
    if text.model == "words":
        return Frozen(), True, text.words.dim
    if text.model != "t5" or text.t5.name not in T5 or text.t5.finetune:
        raise ValueError(f"conditioners.description={dict(text)}: the simulation knows words and a fixed {', '.join(T5)}")
    return t5(text.t5.name, tokens), False, T5[text.t5.name][0]


@functools.cache
def t5(name: str, tokens: int) -> Frozen:
    """A T5 encoder on captions of `tokens` tokens."""
    from transformers import T5Config, T5EncoderModel
    d_model, d_ff, layers, heads, d_kv = T5[name]
    with torch.device("meta"):
        model = T5EncoderModel(T5Config(d_model=d_model, d_ff=d_ff, num_layers=layers, num_heads=heads, d_kv=d_kv)).eval()
        ids = torch.zeros(1, tokens, dtype=torch.long)
    return metered(model, lambda: model(ids))


@functools.cache
def codec_of(checkpoint: str, seconds: float) -> Frozen:
    """A codec's encoder on a clip. Its costs are those of one second times their number.

    Raises:
        ValueError: the simulation does not know it.
    """
    from audiocraft.models import builders
    if checkpoint not in CODECS:
        raise ValueError(f"compression_model_checkpoint={checkpoint}: the simulation does not know its size; set it to the "
                         f"one that is most like it of {', '.join(CODECS)}")
    cfg = compose(["solver=compression/tiny_16khz", "device=meta", *CODECS[checkpoint]])
    with torch.device("meta"):
        codec = builders.get_compression_model(cfg).eval()
        audio = torch.zeros(1, cfg.channels, cfg.sample_rate)
    one = metered(codec, lambda: codec.encode(audio))
    recurrent = cfg.seanet.lstm * round(seconds * codec.frame_rate)
    return dataclasses.replace(one, flops=seconds * one.flops, moved=seconds * one.moved, peak=seconds * one.peak,
                               recurrent=recurrent)


@torch.no_grad()
def metered(model: torch.nn.Module, run: tp.Callable[[], tp.Any]) -> Frozen:
    """What a call costs; run twice, as the first leaves behind what the second replaces (weights of `weight_norm`)."""
    weights = sum(x.numel() * x.element_size() for x in [*model.parameters(), *model.buffers()])
    with Meter() as meter:
        run()
        kept = meter.live
        meter.peak, before = meter.live, meter.moved
        with FlopCounterMode(display=False) as counter:
            run()
    return Frozen(weights + kept, counter.get_total_flops(), meter.moved - before, max(meter.peak - kept, 0))
