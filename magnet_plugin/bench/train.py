"""`magnet bench train`: one training update, compared with AudioCraft's, and what each option costs or saves."""
from __future__ import annotations

import contextlib
import dataclasses
import tempfile
import typing as tp

import torch
from torch.nn import functional as F

from ..distributed.reduction import accumulate_gradients, touch_all
from ..modules import schedules
from ..modules.losses import masked_cross_entropy
from ..modules.masking import corrupt, stage_mask
from . import baselines, rates
from .measure import Log, Run, measure_in_turn, ratios
from .settings import SIZES

STAGE = 1               # codebook that is trained, from 0


@dataclasses.dataclass(frozen=True)
class Case:
    """One block of the table."""
    size: str               # key of `settings.SIZES`
    batch: int              # clips B
    length: int             # frames T
    rounds: int = 5


CPU = [Case("tiny", 8, 248), Case("dim512", 2, 480)]
GPU = [Case("tiny", 32, 500), Case("small", 16, 500), Case("small", 4, 1500), Case("medium", 8, 500)]
SMOKE = [Case("tiny", 2, 48, 2)]


def cases(device: torch.device, smoke: bool) -> list[Case]:
    """Return the cases that are measured on a device."""
    return SMOKE if smoke else GPU if device.type == "cuda" else CPU


def measure(case: Case, device: torch.device, log: Log) -> dict[str, tp.Any]:
    """Measure one case.

    Returns:
        `update`: one update with a fixed stage and fixed masks; `tokens`: the codec compared with cached tokens; each as in
        `measure_in_turn`, with its `_ratios` to a baseline; `machine`: rates of the machine at the update's shapes.
    """
    log(f"  {case.size}, batch {case.batch}, {case.length} frames: updates on stage {STAGE + 1}")
    found: dict[str, tp.Any] = {"case": dataclasses.asdict(case)}
    found["update"] = measure_in_turn(_updates(case, device), case.rounds, device, log)
    found["update_ratios"] = ratios(found["update"], "AudioCraft MAGNeT")
    size = SIZES[case.size]
    found["machine"] = rates.measure_rates(case.batch * case.length, size.dim, device, case.rounds)
    with tempfile.TemporaryDirectory() as folder:
        found["tokens"] = measure_in_turn(_tokens(case, folder, device), case.rounds, device)
    found["tokens_ratios"] = ratios(found["tokens"], "bundled codec")
    return found


def _updates(case: Case, device: torch.device) -> dict[str, Run]:
    size, half = SIZES[case.size], torch.bfloat16
    upstream = baselines.upstream_magnet(size, case.length, device, torch.float32)

    def ours(**settings: tp.Any) -> tp.Any:
        model = baselines.plugin_magnet(upstream, size, case.length, device, torch.float32)
        for name, value in settings.items():
            setattr(model.transformer, name, value)
        return model

    def theirs(dtype: tp.Optional[torch.dtype]) -> Run:
        failed = isinstance(upstream, Exception)
        return baselines.failing(upstream) if failed else update(upstream, case, device, dtype)

    runs = {"AudioCraft MAGNeT": theirs(None), "plugin": update(ours(), case, device, None),
            "plugin, bfloat16": update(ours(), case, device, half),
            "plugin, accumulate=2": update(ours(), case, device, None, parts=2),
            "plugin, checkpointing=torch": update(ours(checkpointing="torch"), case, device, None),
            "AudioCraft MAGNeT, bfloat16": theirs(half)}
    if device.type == "cuda":               # on a CPU, compiling takes minutes
        compiled = ours()
        for layer in compiled.transformer.layers:
            layer.compile(backend="inductor")
        runs["plugin, bfloat16, compile=inductor"] = update(compiled, case, device, half)
    return runs


def fixed_batch(case: Case, device: torch.device) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return a batch of random tokens: inputs with masked frames [B, K, T], and targets and mask of the stage [B, T]."""
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(baselines.CARD, (case.batch, baselines.CODEBOOKS, case.length), generator=generator).to(device)
    mask_rates = schedules.mask_rate(torch.rand(case.batch, generator=generator))
    mask = stage_mask(mask_rates, case.length, 3, generator).to(device)
    return corrupt(tokens, STAGE, mask, baselines.CARD), tokens[:, STAGE], mask


def update(model: tp.Any, case: Case, device: torch.device, dtype: tp.Optional[torch.dtype], parts: int = 1) -> Run:
    """Return an update: forward, backward, gradient clipping and AdamW, on one batch of random tokens and fixed masks."""
    model.train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-6)
    shown, targets, mask = fixed_batch(case, device)
    provider, texts = model.condition_provider, baselines.captions(case.batch)

    def loss_of(rows: slice, conditions: dict) -> torch.Tensor:
        autocast = contextlib.nullcontext() if dtype is None else torch.autocast(device.type, dtype=dtype)
        with autocast:
            if hasattr(model, "stage_logits"):
                logits = model.stage_logits(shown[rows], conditions, STAGE)
                return masked_cross_entropy(logits, targets[rows], mask[rows], mask.sum())
            logits = model(shown[rows], [], condition_tensors=conditions, stage=STAGE)[:, STAGE]
            return F.cross_entropy(logits[mask[rows]].float(), targets[rows][mask[rows]])

    def run() -> None:
        loss = accumulate_gradients(loss_of, case.batch, provider(provider.tokenize(texts)), parts,
                                    lambda part: part.backward())
        touch_all(loss, model.linears.parameters()).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()

    return run


def _tokens(case: Case, folder: str, device: torch.device) -> dict[str, Run]:
    """Return two ways from the batch's audio to its tokens: the bundled codec, and the cache on disk."""
    from ..data.token_cache import cache_tokens
    from ..models.loaders import load_codec
    codec, cached = load_codec("//bundled/codec-16khz", device), load_codec("//bundled/codec-16khz", device)
    cache_tokens(cached, folder)
    samples = int(case.length / codec.frame_rate * codec.sample_rate)
    audio = torch.randn(case.batch, 1, samples, generator=torch.Generator().manual_seed(0)).to(device) * 0.1
    return {"bundled codec": torch.no_grad()(lambda: codec.encode(audio)),
            "cache.tokens": torch.no_grad()(lambda: cached.encode(audio))}
