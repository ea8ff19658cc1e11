"""Steps/s against GPUs, a picture of the paper's runs."""
from __future__ import annotations

from pathlib import Path

from ...metrics.pictures import pyplot
from .estimate import Plan, estimate
from .hardware import Assumptions
from .page import MODES, PAPER, recipe_of

GPU = "H100"
COUNTS = (1, 2, 4, 8, 16, 32, 64)
COLOURS = {"small": "#00798c", "medium": "#d1495b"}


def draw(assumed: Assumptions, target: Path) -> Path:
    """Draw a panel for each run to `target`; numbers of GPUs that the batch does not divide by are left out, and hollow
    marks do not fit into memory.

    Raises:
        ImportError: matplotlib is missing.
    """
    plt = pyplot()
    figure, axes = plt.subplots(1, len(PAPER), figsize=(4.2 * len(PAPER), 3.8), layout="constrained", squeeze=False)
    for axis, paper in zip(axes[0], PAPER):
        for scale, colour in COLOURS.items():
            for mode in MODES:
                recipe = recipe_of(paper, scale, mode, assumed.text_tokens)
                found = [estimate(recipe, Plan(count, GPU, recipe.batch), assumed) for count in COUNTS
                         if recipe.batch % count == 0]
                line, = axis.plot([one.plan.gpus for one in found], [1 / one.step for one in found], color=colour,
                                  linestyle="-" if mode == "DDP" else "--", label=f"{scale}, {mode}")
                for one in found:
                    axis.plot(one.plan.gpus, 1 / one.step, "o", color=line.get_color(), markersize=4,
                              markerfacecolor=colour if one.fits else "white")
        axis.set(title=f"{paper.name}, {recipe.batch} clips a step", xlabel=f"{GPU} GPUs", xscale="log", yscale="log")
        axis.set_xticks(COUNTS, [str(count) for count in COUNTS])
        axis.grid(alpha=0.25)
    axes[0, 0].set_ylabel("steps/s, computed")
    axes[0, 0].legend(fontsize=8)
    figure.savefig(target, dpi=110, bbox_inches="tight")
    plt.close(figure)
    return target
