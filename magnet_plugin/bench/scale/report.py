"""Tables of estimates: those that `magnet bench scale` prints, and those of docs/scale.md."""
from __future__ import annotations

import typing as tp
from pathlib import Path

from ..markdown import markdown
from .estimate import Estimate, Plan, estimate
from .hardware import Assumptions
from .recipes import Recipe, read, settings

BEGIN, END = "<!-- magnet bench scale: begin -->", "<!-- magnet bench scale: end -->"
MODES, COUNTS = ("DDP", "FSDP"), (8, 32, 64)
WELL_USED = 0.7                 # of the clips/s per GPU in one node
GIB = 2 ** 30
LABELS = ("run", "scale", "mode")
PLAN = ("GPUs", "batch", "clips per GPU", "steps/s", "days", "bound by", "GB sent per step", "GiB per GPU", "fits",
        "max clips per GPU")


class Case(tp.NamedTuple):
    """A training to estimate."""
    labels: tuple[str, ...]         # cells of `LABELS`, or of its last
    overrides: list[str]            # of `dora run`
    recipe: Recipe


Rows = list[tuple[Case, Estimate]]


def paper() -> list[Case]:
    """Return the paper's trainings. D-Adaptation does not support FSDP, and medium music was trained with AdamW."""
    music, sound, cases = "magnet/magnet_32khz", "magnet/audio_magnet_16khz", []
    ten = ("dataset.segment_duration=10", "dataset.batch_size=576")
    for name, solver, more in (("music, 30 s", music, ()), ("music, 10 s", music, ten), ("sound, 10 s", sound, ())):
        for scale, mode in ((scale, mode) for scale in ("small", "medium") for mode in MODES):
            replaced = solver == music and (scale, mode) != ("small", "DDP")
            adamw = ("optim.optimizer=adamw", "optim.lr=1e-4") if replaced else ()
            overrides = settings(solver, scale, None, mode == "FSDP", (*adamw, *more))
            cases.append(Case((name, scale, mode), overrides, read(overrides)))
    return cases


def estimates(cases: tp.Iterable[Case], gpu: str, counts: tp.Sequence[int], assumed: Assumptions,
              batch: tp.Optional[int] = None) -> Rows:
    """Estimate each case on several numbers of GPUs; `batch` replaces the batch size of the recipe."""
    return [(case, estimate(case.recipe, Plan(count, gpu, batch or case.recipe.batch), assumed))
            for case in cases for count in counts]


def batch_settings(recipe: Recipe, plan: Plan) -> list[str]:
    """Return the overrides that a plan needs: its batch, and a multiple of its GPUs for every data split."""
    sizes = {key: plan.gpus for key, size in recipe.batches.items() if size % plan.gpus}
    if plan.batch != recipe.batch:
        sizes[recipe.batch_key] = plan.batch
    return [f"{key}={size}" for key, size in sizes.items()]


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
    for count in counts:                        # checked before the configs are read, which takes a while
        Plan(count, gpu, count if batch is None else batch)
    rows: Rows = []
    notes = ""
    for mode in modes:
        words = settings(solver, scale, precision, mode == "FSDP", overrides)
        try:
            rows += estimates([Case((mode,), words, read(words))], gpu, counts, assumed, batch)
        except ValueError as error:
            if not rows:
                raise
            notes += f"\nNo rows for {mode}: {error}.\n"
    for case, found in rows[:len(counts)]:
        if words := batch_settings(case.recipe, found.plan):
            notes += f"\nTo train on {found.plan.gpus} GPUs, also set {' '.join(words)}.\n"
    return f"{speed_table(rows)}\nGiB of one GPU by purpose:\n\n{memory_table(rows)}{notes}"


def speed_table(rows: Rows) -> str:
    """Return the speed and the peak memory."""
    lines = []
    for case, found in rows:
        plan = found.plan
        fits = "yes" if found.fits else f"`optim.accumulate={found.accumulate}`" if found.accumulate else "**no**"
        lines.append([*case.labels, str(plan.gpus), str(plan.batch), str(plan.clips), f"{1 / found.step:.2f}",
                      f"{case.recipe.updates * found.step / 86400:.1f}", found.bound, f"{found.sent / 1e9:.2f}",
                      f"{found.peak / GIB:.1f}", fits, str(found.most or "none")])
    return _table(rows, PLAN, lines)


def memory_table(rows: Rows) -> str:
    """Return the GiB of one GPU by purpose, and their peak."""
    lines = [[*case.labels, str(found.plan.gpus), f"{case.recipe.parameters / 1e6:.0f} M",
              *(f"{value / GIB:.2f}" for value in (*found.memory.values(), found.peak))] for case, found in rows]
    return _table(rows, ("GPUs", "parameters", *rows[0][1].memory, "peak"), lines)


def _table(rows: Rows, heads: tp.Sequence[str], lines: list[list[str]]) -> str:
    """Return a table whose first columns are the labels of the cases."""
    labels = len(rows[0][0].labels)
    return markdown([*LABELS[-labels:], *heads], lines, labels)


def write(target: Path, assumed: Assumptions) -> Path:
    """Write the tables of the paper's trainings between the marks of `target`.

    Raises:
        ValueError: if the file does not contain the marks.
    """
    text = target.read_text(errors="replace") if target.is_file() else ""
    if text.count(BEGIN) != 1 or text.count(END) != 1 or text.index(BEGIN) > text.index(END):
        raise ValueError(f"--doc {target}: the file must contain the lines {BEGIN} and {END}, once each and in this order")
    cases = paper()
    h100, a100 = (estimates(cases, gpu, COUNTS, assumed) for gpu in ("H100", "A100-80"))
    tables = {
        "How many H100?": choices(h100),
        "How long does it take on H100?": speed_table(h100),
        "How long does it take on A100 with 80 GB?": speed_table(a100),
        "What fills the memory? GiB of one of 32 H100": memory_table([row for row in h100 if row[1].plan.gpus == 32])}
    middle = "\n".join(f"### {title}\n\n{table}" for title, table in tables.items())
    target.write_text(f"{text.split(BEGIN)[0]}{BEGIN}\n{middle}{END}{text.split(END)[1]}")
    return target


def choices(rows: Rows) -> str:
    """Return, for each training, the largest number of GPUs that is still well used, and the commands."""
    lines, commands = [], []
    for start in range(0, len(rows), len(COUNTS)):
        case, one_node = rows[start]
        pairs = [(found, one_node.step * one_node.plan.gpus / found.step / found.plan.gpus)
                 for _, found in rows[start:start + len(COUNTS)] if found.fits]
        found, share = next((pair for pair in reversed(pairs) if pair[1] >= WELL_USED), pairs[0])
        gpus = found.plan.gpus
        lines.append([*case.labels, str(gpus), f"{1 / found.step:.2f}", f"{100 * share:.0f} %"])
        words = [word for word in case.overrides if word != "device=meta"] + batch_settings(case.recipe, found.plan)
        commands.append(f"# {', '.join(case.labels)}\ndora launch -g {gpus} {' '.join(words)}")
    return (f"The largest of {', '.join(map(str, COUNTS))} GPUs on which the paper's batch fits and each GPU processes at "
            f"least {100 * WELL_USED:.0f} % of its clips/s in one node of 8; otherwise the smallest on which it fits.\n\n"
            + markdown((*LABELS, "GPUs", "steps/s", "of one node's speed per GPU"), lines, 3)
            + "\n```bash\n" + "\n".join(commands) + "\n```\n")
