"""Tables of estimates: those that `magnet bench scale` prints, and those of docs/scale.md."""
from __future__ import annotations

import dataclasses
import functools
import typing as tp
from pathlib import Path

from .. import plot
from ..table import markdown
from .estimate import Estimate, Plan, estimate
from .hardware import GPUS, PRECISIONS, Assumptions, get_gpu
from .recipes import Recipe, read, settings

BEGIN, END = "<!-- magnet bench scale: begin -->", "<!-- magnet bench scale: end -->"
MODES, COUNTS, PICTURED = ("DDP", "FSDP"), (8, 32, 64), (1, 2, 4, 8, 16, 32, 64)
WELL_USED = 0.7                 # of the clips/s per GPU in one node
GIB = 2 ** 30
COMPUTED = "computed, not measured"
LABELS = ("run", "scale", "mode")
PLAN = ("GPUs", "batch", "clips per GPU", "steps/s", "days", "clips/s", "of peak FLOP/s", "bound by", "GiB per GPU", "fits",
        "max clips per GPU", "GB sent per step", "network ms", "exposed ms")


class Case(tp.NamedTuple):
    """A training to estimate."""
    labels: tuple[str, ...]         # cells of `LABELS`, or of its last
    overrides: list[str]            # of `dora run`
    recipe: Recipe

    def on(self, gpu: str, counts: tp.Sequence[int], assumed: Assumptions, batch: tp.Optional[int] = None) -> list[Estimate]:
        """Estimate it on several numbers of GPUs; `batch` replaces the batch size of the recipe."""
        return [estimate(self.recipe, Plan(count, gpu, batch or self.recipe.batch), assumed) for count in counts]


@functools.cache
def paper() -> list[Case]:
    """Return the paper's trainings. D-Adaptation does not support FSDP, and medium music was trained with AdamW."""
    ten, music, cases = ("dataset.segment_duration=10", "dataset.batch_size=576"), "magnet/magnet_32khz", []
    for name, solver, more in (("music, 30 s", music, ()), ("music, 10 s", music, ten),
                               ("sound, 10 s", "magnet/audio_magnet_16khz", ())):
        for scale, mode in ((scale, mode) for scale in ("small", "medium") for mode in MODES):
            dadam = solver != music or (scale, mode) == ("small", "DDP")
            adamw = () if dadam else ("optim.optimizer=adamw", "optim.lr=1e-4")
            overrides = settings(solver, scale, None, mode == "FSDP", (*adamw, *more))
            cases.append(Case((name, scale, mode), overrides, read(overrides)))
    return cases


def plans(solver: str, scale: tp.Optional[str], precision: tp.Optional[str], modes: tp.Sequence[str],
          overrides: tp.Sequence[str], gpu: str, counts: tp.Sequence[int], batch: tp.Optional[int], assumed: Assumptions
          ) -> str:
    """Return the tables of speed and memory of one training.

    Args:
        modes: of `MODES`; one that the config does not support becomes a note if another one is supported.
        overrides: of `dora run`.
    Raises:
        ValueError: if a setting is not supported; the message states what to set instead.
    """
    get_gpu(gpu, precision or PRECISIONS[1])
    for count in counts:                        # checked before the configs are read, which takes a while
        Plan(count, gpu, batch or count)
    cases, notes = [], ""
    for mode in modes:
        words = settings(solver, scale, precision, mode == "FSDP", overrides)
        try:
            case = Case((mode,), words, read(words))
            case.on(gpu, counts, assumed, batch)
            cases.append(case)
        except ValueError as error:
            if not cases:
                raise
            notes += f"\nNo rows for {mode}: {error}.\n"
    return (speed_table(cases, gpu, counts, assumed, batch) + "\nGiB of one GPU by purpose:\n\n"
            + memory_table(cases, gpu, counts, assumed, batch) + notes)


def speed_table(cases: tp.Sequence[Case], gpu: str, counts: tp.Sequence[int], assumed: Assumptions,
                batch: tp.Optional[int] = None) -> str:
    """Return speed, memory and traffic; one row for each case and number of GPUs."""
    rows = []
    for case in cases:
        for found in case.on(gpu, counts, assumed, batch):
            fits = "yes" if found.fits else f"`optim.accumulate={found.accumulate}`" if found.accumulate else "**no**"
            plan = found.plan
            rows.append([*case.labels, str(plan.gpus), str(plan.batch), str(plan.clips), f"{1 / found.step:.2f}",
                         f"{case.recipe.updates * found.step / 86400:.1f}", f"{plan.batch / found.step:.0f}",
                         f"{100 * found.utilization:.0f} %", found.bound, f"{found.peak / GIB:.1f}", fits,
                         str(found.most or "none"), f"{found.traffic.bytes / 1e9:.2f}", f"{1000 * found.network:.0f}",
                         f"{1000 * found.seconds['network']:.0f}"])
    labels = len(cases[0].labels)
    return markdown([*LABELS[-labels:], *PLAN], rows, labels)


def memory_table(cases: tp.Sequence[Case], gpu: str, counts: tp.Sequence[int], assumed: Assumptions,
                 batch: tp.Optional[int] = None) -> str:
    """Return the GiB of one GPU by purpose, and their peak."""
    found = [(case, one) for case in cases for one in case.on(gpu, counts, assumed, batch)]
    rows = [[*case.labels, str(one.plan.gpus), f"{case.recipe.parameters / 1e6:.0f} M",
             *(f"{value / GIB:.2f}" for value in (*one.memory.values(), one.peak))] for case, one in found]
    labels = len(cases[0].labels)
    return markdown([*LABELS[-labels:], "GPUs", "parameters", *found[0][1].memory, "peak"], rows, labels)


def write(target: Path, assumed: Assumptions) -> Path:
    """Write the tables between the marks of `target`, and the picture next to it.

    Raises:
        ValueError: if the file does not contain the marks.
    """
    text = target.read_text() if target.exists() else ""
    if text.count(BEGIN) != 1 or text.count(END) != 1 or text.index(BEGIN) > text.index(END):
        raise ValueError(f"--doc {target}: the file must contain the lines {BEGIN} and {END}, once each and in this order")
    speeds = [f"### {gpu}: {COMPUTED}\n\n" + speed_table(paper(), gpu, COUNTS, assumed) for gpu in ("H100", "A100-80")]
    memory = f"### Memory of one of 32 H100, GiB: {COMPUTED}\n\n" + memory_table(paper(), "H100", [32], assumed)
    tables = "\n".join([choices(assumed), *speeds, memory, capacity(assumed), hardware(assumed)])
    curves: plot.Curves = {}
    for case in paper():
        found = case.on("H100", [count for count in PICTURED if case.recipe.batch % count == 0], assumed)
        panel = curves.setdefault(f"{case.labels[0]}, {case.recipe.batch} clips per step", {})
        panel[", ".join(case.labels[1:])] = [(one.plan.gpus, 1 / one.step, one.fits) for one in found]
    plot.draw_scaling(curves, target.with_suffix(".png"))
    target.write_text(f"{text.split(BEGIN)[0]}{BEGIN}\n{tables}{END}{text.split(END)[1]}")
    return target


def choices(assumed: Assumptions) -> str:
    """Return, for each training, the largest number of H100 that is still well used, and the command."""
    rows = []
    for case in paper():
        found = case.on("H100", COUNTS, assumed)
        speeds = [one.plan.clips / one.step for one in found]
        fitting = [(one, speed / speeds[0]) for one, speed in zip(found, speeds) if one.fits]
        one, share = next((pair for pair in reversed(fitting) if pair[1] >= WELL_USED), fitting[0])
        words = [word for word in case.overrides if word != "device=meta"]
        rows.append([*case.labels, str(one.plan.gpus), f"{1 / one.step:.2f}", f"{100 * share:.0f} %",
                     f"`dora launch -g {one.plan.gpus} {' '.join(words)}`"])
    return (f"### How many H100: {COMPUTED}\n\nThe largest of {', '.join(map(str, COUNTS))} GPUs on which the paper's batch "
            f"fits and each GPU processes at least {100 * WELL_USED:.0f} % of its clips/s in one node of 8; "
            "otherwise the smallest on which it fits.\n\n"
            + markdown((*LABELS, "GPUs", "steps/s", "of one node's speed per GPU", "command"), rows, 3))


def capacity(assumed: Assumptions) -> str:
    """Return the number of clips that fit on each kind of GPU."""
    rows = []
    for labels, _, recipe in paper():
        older = dataclasses.replace(recipe, precision="float32") if recipe.fsdp else recipe
        most = [estimate(recipe if gpu.ampere else older, Plan(32, name, 32), assumed).most for name, gpu in GPUS.items()]
        rows.append([*labels, *(str(one or "none") for one in most)])
    return (f"### Maximum clips per GPU on 32 GPUs: {COMPUTED}\n\nThe largest batch is this times the number of GPUs. "
            "FSDP on a V100 computes in float32.\n\n" + markdown((*LABELS, *GPUS), rows, 3))


def hardware(assumed: Assumptions) -> str:
    """Return the figures of GPUs with their sources, and the assumptions."""
    rows = [[name, *(f"{value:g}" for value in (gpu.half / 1e12, gpu.float32 / 1e12, gpu.memory / 1e9, gpu.bandwidth / 1e9,
                                                gpu.inside / 1e9, gpu.outside / 1e9)), gpu.source]
            for name, gpu in GPUS.items()]
    heads = ("GPU", "half, TFLOP/s", "float32, TFLOP/s", "memory, GB", "memory, GB/s", "in a node, GB/s",
             "between nodes, GB/s", "source")
    values = [[f"`{name}`", f"{value:g}"] for name, value in dataclasses.asdict(assumed).items()]
    return ("### Hardware and assumptions\n\n" + markdown(heads, rows) + "\nBandwidths of links are a GPU's, in one "
            "direction, in nodes of eight.\n\n" + markdown(("assumption (`hardware.Assumptions`)", "value"), values))
