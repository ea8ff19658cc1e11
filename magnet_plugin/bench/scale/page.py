"""The tables of docs/scale.md, written between its two marks."""
from __future__ import annotations

import dataclasses
import functools
import typing as tp
from pathlib import Path

from . import checks, rates
from .estimate import Estimate, Plan, estimate
from .hardware import GPUS, Assumptions
from .recipes import Recipe, read, settings

BEGIN, END = "<!-- magnet bench scale: begin -->", "<!-- magnet bench scale: end -->"
COUNTS = (8, 32, 64)
MODES = ("DDP", "FSDP")
SCALES = ("small", "medium")
WELL_USED = 0.7
ADAMW = ("optim.optimizer=adamw", "optim.lr=1e-4")
GIB = 2 ** 30


class Paper(tp.NamedTuple):
    """A run of the paper's: what it is called here, the solver, its overrides, and those of the medium scale. With FSDP the
    small one has the latter too: D-Adaptation does not go with shards."""
    name: str
    solver: str
    more: tuple[str, ...] = ()
    medium: tuple[str, ...] = ADAMW

    def overrides(self, scale: str, mode: str) -> tuple[str, ...]:
        """What a run at `scale` has besides the solver."""
        return (*(self.medium if scale == "medium" or mode == "FSDP" else ()), *self.more)


PAPER = [Paper("music, 30 s", "magnet/magnet_32khz"),
         Paper("music, 10 s", "magnet/magnet_32khz", ("dataset.segment_duration=10", "dataset.batch_size=576")),
         Paper("sound, 10 s", "magnet/audio_magnet_16khz", medium=())]


@functools.cache
def recipe_of(paper: Paper, scale: str, mode: str, text_tokens: int) -> Recipe:
    """A run of the paper's at a scale."""
    return read(settings(paper.solver, scale, None, mode == "FSDP", paper.overrides(scale, mode)), text_tokens)


def write(target: Path, records: Path, assumed: Assumptions) -> Path:
    """Put the tables between the marks of `target`, and a picture beside it.

    Raises:
        ValueError: the file has no marks.
    """
    text = target.read_text() if target.exists() else ""
    if text.count(BEGIN) != 1 or text.count(END) != 1 or text.index(BEGIN) > text.index(END):
        raise ValueError(f"--doc {target}: the file needs the lines {BEGIN} and {END}, once each")
    from .picture import draw
    draw(assumed, target.with_suffix(".png"))
    before, after = text.split(BEGIN)[0], text.split(END)[1]
    target.write_text(f"{before}{BEGIN}\n{tables(records, assumed)}{END}{after}")
    return target


def tables(records: Path, assumed: Assumptions) -> str:
    """All that stands between the marks."""
    parts = [choices("H100", assumed), *(steps(gpu, assumed) for gpu in ("H100", "A100-80")), memory("H100", 32, assumed)]
    return "\n".join([*parts, room(assumed), measured(records), counted(), hardware(assumed)])


def table(heads: tp.Sequence[str], rows: tp.Iterable[tp.Sequence[str]], left: int = 1) -> str:
    """Markdown; the first `left` columns are text."""
    lines = ["| " + " | ".join(heads) + " |", "| " + " | ".join(["---"] * left + ["---:"] * (len(heads) - left)) + " |"]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in rows)]) + "\n"


HEADS = ("GPUs", "mode", "clips per GPU", "steps/s", "clips/s", "of peak", "bound", "GiB per GPU", "fits",
         "most clips per GPU", "GB sent per step", "network ms", "not hidden ms")


def row(found: Estimate, mode: str) -> list[str]:
    """A plan in figures. What does not fit, but would in parts, is told their number."""
    fits = "yes" if found.fits else f"`optim.accumulate={found.accumulate}`" if found.accumulate else "**no**"
    plan, most = found.plan, str(found.most) if found.most else "none"
    return [str(plan.gpus), mode, str(plan.clips), f"{1 / found.step:.2f}", f"{plan.batch / found.step:.0f}",
            f"{100 * found.share:.0f} %", found.bound,
            f"{found.peak / GIB:.1f}", fits, most, f"{found.traffic.bytes / 1e9:.2f}",
            f"{1000 * found.network:.0f}", f"{1000 * found.seconds['network']:.0f}"]


def steps(gpu: str, assumed: Assumptions) -> str:
    """Steps/s of the paper's runs on one kind of GPU."""
    lines = []
    for paper in PAPER:
        for scale in SCALES:
            for count in COUNTS:
                for mode in MODES:
                    recipe = recipe_of(paper, scale, mode, assumed.text_tokens)
                    found = estimate(recipe, Plan(count, gpu, recipe.batch), assumed)
                    lines.append([paper.name, str(recipe.batch), scale, *row(found, mode)])
    return (f"### {gpu}: computed, not measured\n\n"
            + table(("run", "`dataset.batch_size`", "scale", *HEADS), lines, 3))


def choices(gpu: str, assumed: Assumptions) -> str:
    """For each run the most GPUs that are still well used, and the command."""
    lines = []
    for paper in PAPER:
        for scale in SCALES:
            for mode in MODES:
                recipe = recipe_of(paper, scale, mode, assumed.text_tokens)
                found = [estimate(recipe, Plan(count, gpu, recipe.batch), assumed) for count in COUNTS]
                speed = {one.plan.gpus: one.plan.clips / one.step for one in found}
                fitting = [one for one in found if one.fits]
                good = [one for one in fitting if speed[one.plan.gpus] >= WELL_USED * speed[COUNTS[0]]]
                for one in (good[-1:] or fitting[:1]):
                    lines.append([paper.name, scale, mode, str(one.plan.gpus), f"{1 / one.step:.2f}",
                                  f"{100 * speed[one.plan.gpus] / speed[COUNTS[0]]:.0f} %",
                                  command(paper, scale, mode, one.plan)])
    return (f"### Which to choose, on {gpu}: computed, not measured\n\n"
            f"The most GPUs of {', '.join(map(str, COUNTS))} on which the paper's batch fits and each does at least "
            f"{100 * WELL_USED:.0f} % of what it would do in one node, or else the fewest on which it fits.\n\n"
            + table(("run", "scale", "mode", "GPUs", "steps/s", "of a node's speed", "command"), lines, 3))


def command(paper: Paper, scale: str, mode: str, plan: Plan) -> str:
    """What to queue."""
    train = "dataset.train" if paper.solver.endswith("16khz") else "dataset"
    more = [word for word in paper.overrides(scale, mode) if not word.startswith("dataset.batch_size")]
    fsdp = ("fsdp.use=true", "autocast=false") if mode == "FSDP" else ()
    words = ["dora launch", f"-g {plan.gpus}", f"solver={paper.solver}", f"model_scale={scale}", *more,
             f"{train}.batch_size={plan.batch}", *fsdp]
    return f"`{' '.join(words)}`"


def memory(gpu: str, count: int, assumed: Assumptions) -> str:
    """What the memory is for."""
    lines, names = [], []
    for paper in PAPER:
        for scale in SCALES:
            for mode in MODES:
                recipe = recipe_of(paper, scale, mode, assumed.text_tokens)
                found = estimate(recipe, Plan(count, gpu, recipe.batch), assumed)
                names = list(found.memory)
                lines.append([paper.name, scale, mode, f"{recipe.parameters / 1e6:.0f} M",
                              *(f"{value / GIB:.2f}" for value in found.memory.values()), f"{found.peak / GIB:.2f}"])
    return (f"### Memory of a GPU, GiB, {count} GPUs ({gpu}): computed, not measured\n\n"
            "The parts are not all there at a time (gradients grow while activations go, the codec is through before the "
            "transformer begins): the peak is less than their sum.\n\n"
            + table(("run", "scale", "mode", "parameters", *names, "peak"), lines, 3))


def room(assumed: Assumptions) -> str:
    """Clips that fit on a GPU of each kind, on 32 of them."""
    lines = []
    for paper in PAPER:
        for scale in SCALES:
            for mode in MODES:
                recipe = recipe_of(paper, scale, mode, assumed.text_tokens)
                whole = dataclasses.replace(recipe, precision="float32") if mode == "FSDP" else recipe
                found = [estimate(recipe if one.bfloat16 else whole, Plan(32, gpu, 32), assumed).most
                         for gpu, one in GPUS.items()]
                lines.append([paper.name, scale, mode, *(str(most) if most else "none" for most in found)])
    return ("### Most clips per GPU on 32 GPUs: computed, not measured\n\n"
            "`dataset.batch_size` is this times the number of GPUs, at most. FSDP on a V100 computes in float32.\n\n"
            + table(("run", "scale", "mode", *GPUS), lines, 3))


def measured(folder: Path) -> str:
    """Updates that were measured, and what the model of time makes of the same machine's rates."""
    text = ["### One update: computed from the machine's own rates, and measured\n"]
    for name, record in rates.records(folder):
        made, found = record["made_with"], rates.rows(record, name != "train-cpu.json")
        if not found:
            text.append(f"`{name}` holds no rates of its machine: `{record['command']}` writes them.\n")
            continue
        text.append(f"`{name}`: {made['measured_on']}, {made['cores']} cores, {made['threads']} threads, "
                    f"torch {made['torch']}, {record['date']}, `{record['command']}`.\n")
        lines = [[one.case, one.name, f"{one.measured:.3g}", f"{one.computed:.3g}", f"{one.computed / one.measured:.2f}",
                  *(("–", "–") if one.measured_mib is None else (f"{one.measured_mib:.0f}", f"{one.computed_mib:.0f}")),
                  "–" if one.share is None else f"{100 * one.share:.0f} %"] for one in found]
        text.append(table(("model", "update", "measured s", "computed s", "computed / measured", "measured MiB",
                           "computed MiB", "of the GPU's peak"), lines, 2))
    return "\n".join(text)


def counted() -> str:
    """The formulas beside what torch counts."""
    import magnet_plugin
    magnet_plugin.register()
    lines = []
    for case in checks.CASES:
        name = f"{case.name}, batch {case.batch}, {case.frames} frames, {case.precision}, stage {case.stage + 1}"
        name += ", checkpointing" * case.checkpointing
        lines.append([name, *(f"{0.0 + round(100 * (computed / found - 1), 1):+.1f} %"
                              for computed, found in checks.count(case).values())])
    heads = ("FLOPs forward", "FLOPs backward", "kept for backward", "peak", "bytes moved", "kernels")
    return ("### The formulas beside what torch counts on the real model\n\n"
            "Computed against counted, on a processor; no clock is read.\n\n" + table(("model", *heads), lines))


def hardware(assumed: Assumptions) -> str:
    """Figures of GPUs, and assumptions."""
    lines = [[name, f"{gpu.half / 1e12:g}", f"{gpu.float32 / 1e12:g}", f"{gpu.memory / 1e9:g}", f"{gpu.bandwidth / 1e9:g}",
              f"{gpu.inside / 1e9:g}", f"{gpu.outside / 1e9:g}", gpu.source] for name, gpu in GPUS.items()]
    heads = ("GPU", "half, TFLOP/s", "float32, TFLOP/s", "memory, GB", "its GB/s", "in a node, GB/s", "between nodes, GB/s",
             "source")
    values = [[f"`{field.name}`", f"{getattr(assumed, field.name):g}"] for field in dataclasses.fields(assumed)]
    return ("### Hardware and assumptions\n\n" + table(heads, lines)
            + "\nBandwidths of links are a GPU's, in one direction, in nodes of eight.\n\n"
            + table(("assumed (`hardware.Assumptions`)", "value"), values))
