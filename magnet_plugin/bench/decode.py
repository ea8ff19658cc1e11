"""`magnet bench decode`: whole clips and single decoding steps, compared with the baselines."""
from __future__ import annotations

import dataclasses
import typing as tp

import torch

from ..decoding.options import GenerationOptions
from ..engine import float8
from ..models.predictors import predictor
from ..modules.context import Band, Full
from . import baselines
from .measure import Log, Run, measure_in_turn, ratios
from .settings import SIZES

PAPER = (20, 10, 10, 10)
SHORT = (4, 2, 2, 2)
SHORTEST = (2, 1, 1, 1)


@dataclasses.dataclass(frozen=True)
class Case:
    """One block of the table."""
    size: str                                   # key of `settings.SIZES`
    batch: int                                  # clips B
    length: int                                 # frames T
    steps: tuple[int, ...] = PAPER              # decoding steps per codebook; fewer than the paper's to save time
    rounds: int = 5
    only: tuple[str, ...] = ()                  # rows to measure; all if empty


MAIN = ("AudioCraft MAGNeT", "fast path")
# 480 frames: on a CPU, AudioCraft's MAGNeT only runs at multiples of 8.
CPU = [Case("tiny", 1, 480), Case("tiny", 4, 480, SHORT),
       Case("dim512", 1, 480, only=(*MAIN, "bfloat16", "MusicGen")),
       Case("dim512", 4, 480, SHORTEST, only=(*MAIN, "reference path", "bfloat16", "int8")),
       Case("dim1024", 1, 480, SHORT, only=MAIN), Case("dim1024", 4, 480, SHORTEST, only=MAIN),
       Case("small", 1, 480, SHORTEST, rounds=1, only=(*MAIN, "reference path", "bfloat16", "int8"))]
GPU = [Case(size, batch, length) for size in ("tiny", "small", "medium") for batch in (1, 8, 64) for length in (500, 1500)
       if not (size == "medium" and batch == 64 and length == 1500)] + [Case("small", 16, 1500)]
SMOKE = [Case("tiny", 1, 48, SHORTEST, 2)]


def cases(device: torch.device, smoke: bool) -> list[Case]:
    """Return the cases that are measured on a device."""
    return SMOKE if smoke else GPU if device.type == "cuda" else CPU


def measure(case: Case, device: torch.device, log: Log) -> dict[str, tp.Any]:
    """Measure one case.

    Returns:
        `decode`: whole clips; `first stage`, `later stages`: one guided forward pass of all frames, for batch 1 or on CUDA;
        each as in `measure_in_turn`, with its `_ratios` to a baseline.
    """
    dtype = torch.float16 if device.type == "cuda" else torch.float32
    size = SIZES[case.size]
    upstream = baselines.upstream_magnet(size, case.length, device, dtype)
    musicgen = baselines.upstream_musicgen(size, case.length, device, dtype)
    ours = baselines.plugin_magnet(upstream, size, case.length, device, dtype)
    runs = {name: run for name, run in _decoders(case, ours, upstream, musicgen, device).items()
            if not case.only or name in case.only}
    log(f"  {case.size}, batch {case.batch}, {case.length} frames, steps {list(case.steps)}: whole clips")
    found = {"case": dataclasses.asdict(case), "parameters": sum(p.numel() for p in ours.parameters()),
             "decode": measure_in_turn(runs, case.rounds, device, log)}
    found["decode_ratios"] = ratios(found["decode"], "AudioCraft MAGNeT")
    for name, stage in (("first stage", 0), ("later stages", 1)) if case.batch == 1 or device.type == "cuda" else ():
        log(f"    single steps, {name}")
        found[name] = measure_in_turn(_steps(case, ours, upstream, stage, device, dtype), case.rounds, device)
        found[f"{name}_ratios"] = ratios(found[name], "matrix products")
    return found


def _decoders(case: Case, ours: tp.Any, upstream: tp.Any, musicgen: tp.Any, device: torch.device) -> dict[str, Run]:
    texts = baselines.captions(case.batch)
    shared = {"max_gen_len": case.length, "temp": 3.0, "top_p": 0.9, "decoding_steps": list(case.steps),
              "span_arrangement": "stride1"}

    def own(**options: tp.Any) -> Run:
        return lambda: ours.generate(None, list(texts), seed=0, **{**shared, **options})

    def theirs() -> tp.Any:
        return upstream.generate(None, list(texts), max_cfg_coef=10.0, min_cfg_coef=1.0, **shared)

    found = {"AudioCraft MAGNeT": baselines.failing(upstream) if isinstance(upstream, Exception) else theirs,
             "fast path": own(), "reference path": own(engine="plain"),
             "guidance_every=2": own(guidance_every=2), "guidance_interval=0..0.8": own(guidance_interval=(0.0, 0.8)),
             "bfloat16": own(precision="bfloat16")}
    if device.type == "cpu":
        found["int8"] = own(precision="int8")
    if float8.find_problem(device) is None:
        found["float8"] = own(precision="float8")
    if case.steps == PAPER:             # MusicGen takes one step per frame: only MAGNeT's full number is comparable
        found["MusicGen"] = lambda: musicgen.generate(None, list(texts), max_gen_len=case.length, top_k=250, cfg_coef=3.0)
    return found


@torch.no_grad()
def _steps(case: Case, ours: tp.Any, upstream: tp.Any, stage: int, device: torch.device, dtype: torch.dtype
           ) -> dict[str, Run]:
    size, texts = SIZES[case.size], baselines.captions(case.batch)
    tokens = torch.full((case.batch, baselines.CODEBOOKS, case.length), baselines.CARD, device=device)
    every_frame = torch.arange(case.length, device=device).expand(case.batch, -1)
    context = Full() if stage == 0 else Band(5)

    def guided(engine: str) -> Run:
        predict = predictor(ours, list(texts), case.batch, GenerationOptions(engine=engine))
        return torch.no_grad()(lambda: predict.logits(tokens, stage, 5.0, every_frame))

    def products(packed: bool) -> Run:
        return baselines.matrix_products(size, case.batch, case.length, context, device, dtype, packed)

    found = {"matrix products": products(False), "matrix products, packed": products(True), "fast path": guided("lean"),
             "reference path": guided("plain")}
    if not isinstance(upstream, Exception):
        conditions = upstream.condition_provider(upstream.condition_provider.tokenize(texts * 2))
        found["AudioCraft MAGNeT"] = torch.no_grad()(
            lambda: upstream(tokens.repeat(2, 1, 1), [], condition_tensors=conditions, stage=stage))
    return found
