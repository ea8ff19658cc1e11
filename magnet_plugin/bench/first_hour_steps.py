"""The measurements of `magnet bench first-hour`: a profiled clip, decoding, training with generation, and FSDP."""
from __future__ import annotations

import statistics
import tempfile
import typing as tp
from collections import Counter

import torch

from ..distributed import fsdp
from ..engine.engines import release
from ..models.lm_magnet import MagnetLMModel
from ..modules.losses import masked_cross_entropy
from . import baselines, decode, records, train
from .first_hour import DECODE, MEASURED
from .measure import Log, Run, seconds, used_memory
from .settings import SIZES

Found = dict[str, tp.Any]


def measure(name: str, device: torch.device, smoke: bool, log: Log) -> Found:
    """Run one step in this process.

    Returns:
        A record (see `records`) with `summary`, one line; and `failed`, true if the plugin itself failed; or `skipped`, the
        reason why the step cannot run here.
    Raises:
        ValueError: there is no such step.
    """
    if name not in MEASURED:
        raise ValueError(f"--step {name}: this is not a step; give one of {', '.join(MEASURED)}")
    record = records.new_record("first-hour")
    if name in DECODE:
        tiny: Found = {"size": "tiny", "length": 48, "rounds": 1, "steps": decode.SHORTEST} if smoke else {}
        found = measure_decoding(decode.Case(**{**DECODE[name], **tiny}), device, log)
    elif name == "profile":
        found = profile_clip(*(("tiny", 48, decode.SHORTEST) if smoke else ("small", 500, decode.PAPER)), device, log)
    else:
        case = train.Case("tiny", 2, 48) if smoke else train.Case("small", 8, 500)
        found = (train_and_generate if name == "train" else compare_fsdp)(case, device, log)
    return {**record, **found}


def measure_decoding(case: decode.Case, device: torch.device, log: Log) -> Found:
    """Measure a case of `magnet bench decode`."""
    found = decode.measure(case, device, log)
    rows = {name: f"failed ({row['error']})" if "error" in row else f"{statistics.median(row['seconds']):.3g} s"
            for name, row in found["decode"].items()}
    failed = any("error" in found["decode"][name] for name in ("fast path", "reference path") if name in rows)
    return {"cases": [found], "failed": failed, "summary": ", ".join(f"{name} {text}" for name, text in rows.items())}


def profile_clip(size: str, length: int, steps: tuple[int, ...], device: torch.device, log: Log) -> Found:
    """Profile one clip of the fast path after two warm ones: time in kernels, gaps between them, and launches.

    On a CPU, operators take the place of kernels.
    """
    from torch.autograd import DeviceType
    from torch.profiler import ProfilerActivity, profile
    cuda = device.type == "cuda"
    clip = clip_of(build(size, length, device, torch.float16 if cuda else torch.float32), length, steps)
    first, warm = seconds(clip, device), seconds(clip, device)
    log(f"  first clip {first:.3g} s, warm {warm:.3g} s")
    with profile(activities=[ProfilerActivity.CUDA if cuda else ProfilerActivity.CPU]) as profiler:
        wall = seconds(clip, device)
    events = profiler.events() or []
    kernels = [event for event in events if event.device_type == (DeviceType.CUDA if cuda else DeviceType.CPU)]
    busy = covered((event.time_range.start, event.time_range.end) for event in kernels) / 1e6
    totals: Counter[str] = Counter()
    for event in kernels:
        totals[event.name[:100]] += event.time_range.elapsed_us() / 1e6
    launches = Counter(event.name for event in events if event.name.startswith(("cuda", "cu")) and event not in kernels)
    found = {"first": first, "warm": warm, "profiled": wall, "kernel_seconds": busy, "gap_seconds": wall - busy,
             "kernels": len(kernels), "calls": dict(launches.most_common()), "longest": dict(totals.most_common(15))}
    started = sum(count for name, count in launches.items() if "Launch" in name)
    return {"cases": [found], "summary": f"warm clip {warm:.3g} s; profiled {wall:.3g} s: kernels {busy:.3g} s, gaps "
                                         f"{wall - busy:.3g} s, {len(kernels)} kernels, {started} launches"}


def covered(intervals: tp.Iterable[tuple[float, float]]) -> float:
    """Return the length of the union of intervals.

    >>> covered([(0, 4), (1, 2), (3, 5), (7, 8)])
    6.0
    """
    total, end = 0.0, float("-inf")
    for start, stop in sorted(intervals):
        total += max(0.0, stop - max(start, end))
        end = max(end, stop)
    return total


def train_and_generate(case: train.Case, device: torch.device, log: Log, updates: int = 10) -> Found:
    """Make `updates` bfloat16 updates, generate a clip as the stage `generate` does, and make as many updates again."""
    model = build(case.size, case.length, device, torch.float32)
    memory, times = {}, {}

    def note(when: str) -> None:
        memory[when] = used_memory(device) / 2 ** 20
        log(f"  {when}: {memory[when]:.0f} MiB")

    note("model")
    update = train.update(model, case, device, torch.bfloat16)
    for when in ("first updates", "second updates"):
        times[when] = [seconds(update, device) for _ in range(updates)]
        note(f"after the {when}")
        if when == "first updates":
            model.eval()
            with torch.autocast(device.type, dtype=torch.bfloat16):
                times["generate"] = [seconds(clip_of(model, case.length, decode.SHORT), device)]
            note("after generating")
            release(model)
            note("after the release")
            model.train()
    one, two = (statistics.median(times[when]) for when in ("first updates", "second updates"))
    kept = memory["after the release"] - memory["after the first updates"]
    return {"cases": [{"seconds": times, "memory_mib": memory}],
            "summary": f"update {one:.3g} s, after generating {two:.3g} s; generating left {kept:.0f} MiB"}


def compare_fsdp(case: train.Case, device: torch.device, log: Log, updates: int = 10) -> Found:
    """Train a sharded model on one batch in float32 and in bfloat16, from the same weights, as one rank."""
    backend = "nccl" if device.type == "cuda" else "gloo"
    if not (torch.distributed.is_available() and torch.distributed.is_backend_available(backend)):
        return {"cases": [], "skipped": f"this build of torch has no {backend}", "summary": ""}
    if device.type == "cuda":
        torch.cuda.set_device(device)
    losses: dict[str, list[float]] = {}
    times: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        torch.distributed.init_process_group(backend, f"file://{folder}/meeting", rank=0, world_size=1)
        try:
            for dtype in ("float32", "bfloat16"):
                losses[dtype] = []
                update = sharded_update(case, device, dtype, losses[dtype])
                times[dtype] = [seconds(update, device) for _ in range(updates)]
                log(f"  {dtype}: loss {losses[dtype][0]:.4f} to {losses[dtype][-1]:.4f}")
        finally:
            torch.distributed.destroy_process_group()
    apart = max(abs(half / full - 1) for full, half in zip(losses["float32"], losses["bfloat16"], strict=True))
    full, half = (statistics.median(times[dtype]) for dtype in ("float32", "bfloat16"))
    return {"cases": [{"losses": losses, "seconds": times, "largest_difference": apart}],
            "summary": f"losses differ by up to {apart:.2%}; update {full:.3g} s in float32, {half:.3g} s in bfloat16"}


def sharded_update(case: train.Case, device: torch.device, dtype: str, losses: list[float]) -> Run:
    """Return an update of a sharded model, which appends its loss to `losses`."""
    from audiocraft.solvers.builders import get_optim_parameter_groups
    model = build(case.size, case.length, device, torch.float32).train()
    fsdp.shard(model, fsdp.Sharding(param_dtype=dtype), str(device))
    optimizer = torch.optim.AdamW(get_optim_parameter_groups(model), lr=1e-4)
    shown, targets, mask = train.fixed_batch(case, device)
    provider, texts = model.condition_provider, baselines.captions(case.batch)

    def run() -> None:
        logits = model.stage_logits(shown, provider(provider.tokenize(texts)), train.STAGE)
        loss = masked_cross_entropy(logits, targets, mask, mask.sum())
        loss.backward()
        fsdp.sync_gradients(model)
        fsdp.clip_grad_norm(model, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(float(loss))

    return run


def build(size: str, length: int, device: torch.device, dtype: torch.dtype) -> tp.Any:
    """Build the plugin's model with random weights."""
    return baselines.build(MagnetLMModel, SIZES[size], length, device, dtype)


def clip_of(model: tp.Any, length: int, steps: tp.Sequence[int]) -> Run:
    """Return a run that generates one clip by the fast path."""
    return lambda: model.generate(None, baselines.captions(1), max_gen_len=length, decoding_steps=list(steps), seed=0,
                                  span_arrangement="stride1")
