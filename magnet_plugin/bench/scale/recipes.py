"""Read from a training config what its cost depends on. Models are built on the meta device: no weights are allocated."""
from __future__ import annotations

import typing as tp
from dataclasses import dataclass

import torch
from omegaconf import OmegaConf

from ...data.preflight import SPLITS
from .costs import Shape


class Frozen(tp.NamedTuple):
    """A model that only runs forward, in float32: a codec on a second of audio, a text encoder on a caption of 64 tokens."""
    held: int = 0               # bytes of weights and of what it caches
    flops: float = 0            # of matrix products and convolutions
    moved: float = 0            # bytes read and written by all other operations
    peak: float = 0             # most bytes of activations at a time
    recurrent: float = 0        # sequential steps: frames times LSTM layers

    def on(self, seconds: float) -> Frozen:
        """Return the costs of a clip."""
        return Frozen(self.held, *(seconds * cost for cost in self[1:]))


#: Counted on the real models by `tests/bench/test_scale_recipes.py`; text encoders with their channels.
TEXTS = {"t5-small": (512, Frozen(141323264, 2466250752, 100304896, 1703936)),
         "t5-base": (768, Frozen(438514176, 11022630912, 198350336, 2555904)),
         "t5-large": (1024, Frozen(1339758592, 39057358848, 393219072, 3407872))}
CODECS = {"//pretrained/facebook/encodec_32khz": Frozen(282525208, 7879884800, 335959416, 35213312, 100),
          "//reference/bd44a852/checkpoint.th": Frozen(282131992, 7079116800, 282320760, 35213312, 100),
          "//bundled/codec-16khz": Frozen(7936152, 224768000, 35339064, 3584128)}
#: Settings of the transformer that the formulas of `costs.py` cover.
SUPPORTED: dict[str, tuple] = {
    "norm_first": (True,), "bias_ff": (False,), "bias_attn": (False,), "bias_proj": (False,), "dropout": (0,),
    "layer_scale": (None,), "positional_embedding": ("sin",), "kv_repeat": (1,), "attention_as_float32": (False,),
    "qk_layer_norm": (False,), "qk_layer_norm_cross": (False,), "activation": ("gelu",), "checkpointing": ("none", "torch")}


@dataclass(frozen=True)
class Recipe:
    """A training config in numbers."""
    shape: Shape
    units: tuple[int, ...]                  # parameters by FSDP unit: the rest, each layer, the conditioner
    tensors: int                            # number of parameter tensors
    text: Frozen
    codec: Frozen
    batches: dict[str, int]                 # clips over all ranks, by config key
    updates: int                            # of the whole training
    optimizer: str
    ema_every: int                          # updates between two EMA updates; 0: no EMA
    clips_gradients: bool
    accumulate: int                         # micro-batches of a rank's batch
    eager: bool                             # gradients are reduced during the backward pass
    precision: str                          # of matrix products
    fsdp: str                               # fsdp.sharding_strategy; empty without FSDP
    reduce: int                             # bytes of a number in FSDP's gradient reduction

    @property
    def parameters(self) -> int:
        return sum(self.units)

    @property
    def batch_key(self) -> str:
        """The config key of the batch size in training: a split's own takes precedence."""
        return "dataset.train.batch_size" if "dataset.train.batch_size" in self.batches else "dataset.batch_size"

    @property
    def batch(self) -> int:
        return self.batches[self.batch_key]


def compose(overrides: tp.Sequence[str]) -> tp.Any:
    """Return the config of `dora run OVERRIDES`.

    Raises:
        ValueError: if a group or a setting does not exist.
    """
    from hydra.errors import HydraException

    from ...train import main
    try:
        return main._get_config(list(overrides))
    except HydraException as error:
        raise ValueError(f"dora run {' '.join(overrides)}: {' '.join(str(error).split())[:300]}") from None


def settings(solver: str, scale: tp.Optional[str] = None, precision: tp.Optional[str] = None, fsdp: bool = False,
             more: tp.Sequence[str] = ()) -> list[str]:
    """Return the overrides of a run on GPUs. FSDP takes the precision from `fsdp.param_dtype`, not from autocast."""
    found = [f"solver={solver}", *([f"model_scale={scale}"] if scale else []), "device=meta", *more]
    if fsdp:
        return [*found, "fsdp.use=true", "autocast=false", *([f"fsdp.param_dtype={precision}"] if precision else [])]
    if precision == "float32":
        return [*found, "autocast=false"]
    return [*found, "autocast=true", *([f"autocast_dtype={precision}"] if precision else [])]


def read(overrides: tp.Sequence[str]) -> Recipe:
    """Read the recipe of a run from its overrides, as `settings` returns them.

    Raises:
        ValueError: if it is not a run of MAGNeT, or has a setting that the formulas do not cover.
    """
    from ...models.builders import get_sharding
    cfg = compose(overrides)
    get_sharding(cfg)                           # raises for what could not run
    if cfg.get("lm_model") != "transformer_lm_magnet" or "magnet" not in cfg.solver or "hybrid" in cfg.solver:
        raise ValueError(f"--solver: {cfg.solver} is not a MAGNeT solver; choose magnet/magnet_32khz, "
                         "magnet/audio_magnet_16khz, or another of config/solver/magnet except the hybrids")
    lm, optim, codec = cfg.transformer_lm, cfg.optim, cfg.compression_model_checkpoint
    for name, values in SUPPORTED.items():
        if name in lm and lm[name] not in values:
            raise ValueError(f"transformer_lm.{name}={lm[name]} is not supported by the estimate; "
                             f"use {' or '.join(map(str, values))}")
    if codec not in CODECS:
        raise ValueError(f"compression_model_checkpoint={codec}: the estimate does not know its size; set the most similar "
                         f"of {', '.join(CODECS)}")
    keys = ["dataset.batch_size", *(f"dataset.{split}.batch_size" for split in SPLITS)]
    text, trained, text_dim = _text(cfg)
    model = _build(overrides, 0 if trained else text_dim)
    shape = Shape(lm.dim, lm.num_heads, lm.num_layers, int(lm.hidden_scale * lm.dim), lm.n_q, lm.card, model.segment_frames,
                  lm.subcodes_context, text_dim, trained, lm.checkpointing == "torch")
    return Recipe(
        shape, units_of(model, cfg.fsdp.per_block), len(list(model.parameters())),
        text=text, codec=CODECS[codec].on(cfg.dataset.segment_duration),
        batches={key: size for key in keys if (size := OmegaConf.select(cfg, key))},
        updates=optim.epochs * (optim.updates_per_epoch or 0), optimizer=optim.optimizer,
        ema_every=optim.ema.updates if optim.ema.use else 0, clips_gradients=bool(optim.max_norm),
        accumulate=optim.accumulate, eager=bool(optim.eager_sync),
        precision=cfg.fsdp.param_dtype if cfg.fsdp.use else cfg.autocast_dtype if cfg.autocast else "float32",
        fsdp=cfg.fsdp.sharding_strategy if cfg.fsdp.use else "", reduce=getattr(torch, cfg.fsdp.reduce_dtype).itemsize)


def _build(overrides: tp.Sequence[str], text_dim: int) -> tp.Any:
    """Build the language model on the meta device; a frozen text encoder of `text_dim` channels is left out."""
    from audiocraft.models import builders
    table = f"{{model: words, words: {{n_bins: 1, dim: {text_dim}}}}}"
    words = ["~conditioners.description", f"+conditioners.description={table}"] if text_dim else []
    with torch.device("meta"):
        model = builders.get_lm_model(compose([*overrides, *words]))
    if text_dim:
        del model.condition_provider.conditioners["description"].embed
    return model


def units_of(model: tp.Any, per_block: bool) -> tuple[int, ...]:
    """Return the number of parameters by FSDP unit. The conditioner, which FSDP replicates (under 1 % of the weights),
    counts as sharded."""
    inner = [*model.transformer.layers, model.condition_provider] if per_block else []
    sizes = [sum(p.numel() for p in module.parameters()) for module in inner]
    return sum(p.numel() for p in model.parameters()) - sum(sizes), *filter(None, sizes)


def _text(cfg: tp.Any) -> tuple[Frozen, bool, int]:
    """Return the frozen text encoder, whether it is trained instead, and its channels."""
    if not cfg.conditioners:
        return Frozen(), False, 0
    if list(cfg.conditioners) != ["description"] or list(cfg.fuser.cross) != ["description"]:
        raise ValueError(f"conditioners {sorted(cfg.conditioners)}: the estimate supports one text in cross-attention")
    text = cfg.conditioners.description
    if text.model == "words":
        return Frozen(), True, text.words.dim
    if text.model != "t5" or text.t5.name not in TEXTS or text.t5.finetune:
        raise ValueError(f"conditioners.description={dict(text)}: the estimate supports words and a frozen "
                         f"{', '.join(TEXTS)}")
    return TEXTS[text.t5.name][1], False, TEXTS[text.t5.name][0]
