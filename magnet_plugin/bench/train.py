"""`magnet bench train`: one update of training, the plugin's against AudioCraft's, and what each option costs or saves."""
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
from . import peers
from .measure import ratios, take_turns
from .scale import rates

STAGE = 1


@dataclasses.dataclass(frozen=True)
class Case:
    """One block of the table: a model of `peers.SIZES`, clips at once B, frames T, rounds of turns."""
    size: str
    batch: int
    length: int
    rounds: int = 5


CPU = [Case("tiny", 8, 248), Case("dim512", 2, 480)]
GPU = [Case("tiny", 32, 500), Case("small", 16, 500), Case("small", 4, 1500), Case("medium", 8, 500)]
SMOKE = [Case("tiny", 2, 48, 2)]


def cases(device: torch.device, smoke: bool) -> list[Case]:
    """What is measured on a device."""
    return SMOKE if smoke else GPU if device.type == "cuda" else CPU


def measure(case: Case, device: torch.device, say: tp.Callable[[str], None]) -> dict[str, tp.Any]:
    """One case: an update on a given stage and masks, each with its ratio; `machine`, its rates at the update's shapes;
    `tokens`, the codec against cached tokens."""
    size = peers.SIZES[case.size]
    with peers.audiocrafts_own():
        from audiocraft.models.lm_magnet import MagnetLMModel as Upstream
        try:
            theirs = peers.build(Upstream, size, case.length, device, torch.float32)
        except Exception as error:          # whatever stops it belongs into the table
            theirs = error
    from ..models.lm_magnet import MagnetLMModel

    def ours(**changes: tp.Any) -> tp.Any:
        model = peers.build(MagnetLMModel, size, case.length, device, torch.float32)
        if not isinstance(theirs, Exception):
            model.load_state_dict(theirs.state_dict())
        for name, value in changes.items():
            setattr(model.transformer, name, value)
        return model

    say(f"  {case.size}, batch {case.batch}, {case.length} frames: updates on stage {STAGE + 1}")
    low = torch.bfloat16
    runs = {"AudioCraft MAGNeT": _refusing(theirs) if isinstance(theirs, Exception) else _update(theirs, case, device, None),
            "plugin": _update(ours(), case, device, None), "plugin, bfloat16": _update(ours(), case, device, low),
            "plugin, accumulate=2": _update(ours(), case, device, None, parts=2),
            "plugin, checkpointing=torch": _update(ours(checkpointing="torch"), case, device, None)}
    if not isinstance(theirs, Exception):
        runs["AudioCraft MAGNeT, bfloat16"] = _update(theirs, case, device, low)
    if device.type == "cuda":               # on a CPU, compiling takes minutes
        compiled = ours()
        for layer in compiled.transformer.layers:
            layer.compile(backend="inductor")
        runs["plugin, bfloat16, compile=inductor"] = _update(compiled, case, device, low)
    found: dict[str, tp.Any] = {"case": dataclasses.asdict(case), "update": take_turns(runs, case.rounds, device, say)}
    found["update_ratios"] = ratios(found["update"], "AudioCraft MAGNeT")
    found["machine"] = rates.measure(size, case.batch, case.length, device, case.rounds)
    with tempfile.TemporaryDirectory() as folder:
        found["tokens"] = take_turns(_tokens(case, folder, device), case.rounds, device, lambda text: None)
    found["tokens_ratios"] = ratios(found["tokens"], "bundled codec")
    return found


def _refusing(error: Exception) -> tp.Callable[[], None]:
    def run() -> None:
        raise RuntimeError(f"cannot be built: {error}")
    return run


def _update(model: tp.Any, case: Case, device: torch.device, dtype: tp.Optional[torch.dtype], parts: int = 1
            ) -> tp.Callable[[], None]:
    """Forward, backward, clipping and AdamW on one batch of random tokens with given masks."""
    model.train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-6)
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(peers.CARD, (case.batch, peers.CODEBOOKS, case.length), generator=generator).to(device)
    rates = schedules.mask_rate(torch.rand(case.batch, generator=generator))
    mask = stage_mask(rates, case.length, 3, generator).to(device)
    shown, targets = corrupt(tokens, STAGE, mask, peers.CARD), tokens[:, STAGE]
    provider, texts = model.condition_provider, peers.captions(case.batch)

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


def _tokens(case: Case, folder: str, device: torch.device) -> dict[str, tp.Callable[[], tp.Any]]:
    """The batch's audio as tokens: by the bundled codec, and from the disk."""
    from ..data.token_cache import cache_tokens
    from ..models.loaders import load_codec
    codec, cached = load_codec("//bundled/codec-16khz", device), load_codec("//bundled/codec-16khz", device)
    cache_tokens(cached, folder)
    samples = int(case.length / codec.frame_rate * codec.sample_rate)
    audio = torch.randn(case.batch, 1, samples, generator=torch.Generator().manual_seed(0)).to(device) * 0.1
    return {"bundled codec": torch.no_grad()(lambda: codec.encode(audio)),
            "cache.tokens": torch.no_grad()(lambda: cached.encode(audio))}
