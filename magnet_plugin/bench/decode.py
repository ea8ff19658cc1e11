"""`magnet bench decode`: whole clips and single steps, the engine against its peers."""
from __future__ import annotations

import dataclasses
import typing as tp

import torch

from ..decoding.options import GenerationOptions
from ..models.predictors import predictor
from ..modules.attention import Band, Full
from . import peers
from .measure import ratios, take_turns

PAPER = (20, 10, 10, 10)
SHORT = (4, 2, 2, 2)
SHORTEST = (2, 1, 1, 1)


@dataclasses.dataclass(frozen=True)
class Case:
    """One block of the table.

    Attributes:
        size: key of `peers.SIZES`.
        batch: clips at once, B.
        length: frames T.
        steps: decoding steps per codebook; fewer than the paper's where a CPU would take too long.
        rounds: of turns.
        only: the peers to measure, where all of them would take too long.
    """
    size: str
    batch: int
    length: int
    steps: tuple[int, ...] = PAPER
    rounds: int = 5
    only: tuple[str, ...] = ()


BAR = ("AudioCraft MAGNeT", "engine")
# 480 frames: AudioCraft's MAGNeT runs on a CPU at multiples of 8 alone.
CPU = [Case("tiny", 1, 480), Case("tiny", 4, 480, SHORT),
       Case("dim512", 1, 480, only=(*BAR, "bfloat16", "MusicGen")),
       Case("dim512", 4, 480, SHORTEST, only=(*BAR, "plain", "bfloat16", "int8")),
       Case("dim1024", 1, 480, SHORT, only=BAR), Case("dim1024", 4, 480, SHORTEST, only=BAR),
       Case("small", 1, 480, SHORTEST, rounds=1, only=(*BAR, "plain", "bfloat16", "int8"))]
GPU = [Case(size, batch, length) for size in ("tiny", "small", "medium") for batch in (1, 8, 64) for length in (500, 1500)
       if not (size == "medium" and batch == 64 and length == 1500)] + [Case("small", 16, 1500)]
SMOKE = [Case("tiny", 1, 48, SHORTEST, 2)]


def cases(device: torch.device, smoke: bool) -> list[Case]:
    """What is measured on a device."""
    return SMOKE if smoke else GPU if device.type == "cuda" else CPU


def measure(case: Case, device: torch.device, say: tp.Callable[[str], None]) -> dict[str, tp.Any]:
    """One case: `decode`, whole clips; `step`, one guided forward pass of all positions, for the first stage and a later
    one; each with the ratios of all peers."""
    dtype = torch.float16 if device.type == "cuda" else torch.float32
    size = peers.SIZES[case.size]
    with peers.audiocrafts_own():
        from audiocraft.models.lm import LMModel
        from audiocraft.models.lm_magnet import MagnetLMModel as Upstream
        theirs = _or_error(lambda: peers.build(Upstream, size, case.length, device, dtype))
        musicgen = peers.build(LMModel, size, case.length, device, dtype, causal=True)
    from ..models.lm_magnet import MagnetLMModel
    ours = peers.build(MagnetLMModel, size, case.length, device, dtype)
    if not isinstance(theirs, Exception):
        ours.load_state_dict(theirs.state_dict())
    decode = {name: run for name, run in _decoders(case, ours, theirs, musicgen, device).items()
              if not case.only or name in case.only}
    say(f"  {case.size}, batch {case.batch}, {case.length} frames, steps {list(case.steps)}: whole clips")
    found = {"case": dataclasses.asdict(case), "parameters": sum(p.numel() for p in ours.parameters()),
             "decode": take_turns(decode, case.rounds, device, say)}
    found["decode_ratios"] = ratios(found["decode"], "AudioCraft MAGNeT")
    for name, stage in (("first stage", 0), ("later stages", 1)) if case.batch == 1 or device.type == "cuda" else ():
        say(f"    single steps, {name}")
        found[name] = take_turns(_steps(case, ours, theirs, stage, device, dtype), case.rounds, device, lambda text: None)
        found[f"{name}_ratios"] = ratios(found[name], "bare products")
    return found


def _or_error(make: tp.Callable[[], tp.Any]) -> tp.Any:
    try:
        return make()
    except Exception as error:          # whatever stops it belongs into the table
        return error


def _decoders(case: Case, ours: tp.Any, theirs: tp.Any, musicgen: tp.Any, device: torch.device
              ) -> dict[str, tp.Callable[[], tp.Any]]:
    texts = peers.captions(case.batch)
    shared = {"max_gen_len": case.length, "temp": 3.0, "top_p": 0.9, "decoding_steps": list(case.steps),
              "span_arrangement": "stride1"}

    def upstream() -> tp.Any:
        if isinstance(theirs, Exception):
            raise RuntimeError(f"cannot be built: {theirs}")
        return theirs.generate(None, list(texts), max_cfg_coef=10.0, min_cfg_coef=1.0, **shared)

    def own(**options: tp.Any) -> tp.Callable[[], tp.Any]:
        return lambda: ours.generate(None, list(texts), seed=0, **{**shared, **options})

    found = {"AudioCraft MAGNeT": upstream, "engine": own(), "plain": own(engine="plain"),
             "guidance_every=2": own(guidance_every=2), "guidance_interval=0..0.8": own(guidance_interval=(0.0, 0.8)),
             "bfloat16": own(precision="bfloat16")}
    if device.type == "cpu":
        found["int8"] = own(precision="int8")
    if case.steps == PAPER:             # its steps are one per frame: a comparison wants MAGNeT's full number
        found["MusicGen"] = lambda: musicgen.generate(None, list(texts), max_gen_len=case.length, top_k=250, cfg_coef=3.0)
    return found


@torch.no_grad()
def _steps(case: Case, ours: tp.Any, theirs: tp.Any, stage: int, device: torch.device, dtype: torch.dtype
           ) -> dict[str, tp.Callable[[], tp.Any]]:
    size, texts = peers.SIZES[case.size], peers.captions(case.batch)
    tokens = torch.full((case.batch, peers.CODEBOOKS, case.length), peers.CARD, device=device)
    every_frame = torch.arange(case.length, device=device).expand(case.batch, -1)
    context = Full() if stage == 0 else Band(5)

    def guide(engine: str) -> tp.Callable[[], tp.Any]:
        predict = predictor(ours, list(texts), case.batch, GenerationOptions(engine=engine))
        return torch.no_grad()(lambda: predict.logits(tokens, stage, 5.0, every_frame))

    def bare(packed: bool) -> tp.Callable[[], None]:
        return peers.bare_products(size, case.batch, case.length, context, device, dtype, packed)

    found = {"bare products": bare(False), "bare products, packed": bare(True), "engine": guide("lean"),
             "plain": guide("plain")}
    if not isinstance(theirs, Exception):
        conditions = theirs.condition_provider(theirs.condition_provider.tokenize(texts * 2))
        found["AudioCraft MAGNeT"] = torch.no_grad()(
            lambda: theirs(tokens.repeat(2, 1, 1), [], condition_tensors=conditions, stage=stage))
    return found
