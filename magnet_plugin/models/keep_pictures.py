"""Pictures of a mask: lines of text for a terminal, and a PNG."""
import textwrap
import typing as tp
from pathlib import Path

import torch

from ..metrics.pictures import BACKGROUND, FOREGROUND, clip_axes, pyplot

KEPT, MIXED, FREE = "█", "▒", "·"
KEPT_COLOUR, FREE_COLOUR = "#f7a35c", "#3a2f5b"
STEPS = (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 30, 60, 120, 300, 600)       # seconds between labels
LABEL_COLUMNS = 8               # smallest distance of two labels
WIDTH, MARGIN, ROW, TITLE = 1080, 200, 40, 82       # pixels, and characters of the title


def text(kept: torch.Tensor, frame_rate: float, name: str, width: int = 72) -> str:
    """Draw a mask as lines of text: the share of tokens that it keeps, a line for each codebook, and the seconds.

    Args:
        kept: Bool [K, T].
        frame_rate: frames per second.
        name: of the mask.
        width: number of columns for the clip; each stands for one or more frames, of which all are kept (█), some (▒) or
            none (·).
    """
    K, T = kept.shape
    width = max(1, min(width, T))
    edges = [column * T // width for column in range(width + 1)]
    rows = [title(kept, name)]
    for codebook in reversed(range(K)):
        shares = [float(kept[codebook, first:end].float().mean()) for first, end in zip(edges, edges[1:])]
        cells = "".join(KEPT if share == 1 else FREE if share == 0 else MIXED for share in shares)
        rows.append(f"codebook {codebook + 1:<3} {cells}")
    step = next((step for step in STEPS if step * frame_rate * width / T >= LABEL_COLUMNS), STEPS[-1])
    labels = "seconds".ljust(13)
    for number in range(int(T / frame_rate / step) + 1):
        column = 13 + int(number * step * frame_rate * width / T)
        labels = labels.ljust(column) + f"{number * step:g}"
    return "\n".join([*rows, labels])


def title(kept: torch.Tensor, name: str) -> str:
    """Describe a mask in one line."""
    return f"{float(kept.float().mean()):.0%} of {kept.numel()} tokens kept by {name}"


def figure(kept: torch.Tensor, frame_rate: float, name: str) -> tp.Any:
    """Draw a mask as a matplotlib figure, with codebook 1 at the bottom; arguments are those of `text`."""
    K, T = kept.shape
    drawn, axes = clip_axes(WIDTH, MARGIN + ROW * K, "codebook", "the picture of a mask needs matplotlib")
    plt = pyplot()
    axes.pcolormesh(torch.arange(T + 1) / frame_rate, torch.arange(K + 1) + 0.5, kept.float(), vmin=0, vmax=1,
                    cmap=plt.matplotlib.colors.ListedColormap([FREE_COLOUR, KEPT_COLOUR]))
    axes.hlines(torch.arange(1, K) + 0.5, 0, T / frame_rate, colors=BACKGROUND, linewidth=2)
    axes.set_yticks(range(1, K + 1))
    axes.set_title(textwrap.shorten(title(kept, name), TITLE), color=FOREGROUND, fontsize=11, loc="left")
    boxes = [plt.Rectangle((0, 0), 1, 1, color=colour) for colour in (KEPT_COLOUR, FREE_COLOUR)]
    drawn.legend(boxes, ["kept", "generated again"], loc="lower right", ncols=2, fontsize=11, frameon=False,
                 labelcolor=FOREGROUND)
    return drawn


def save(path: tp.Union[str, Path], kept: torch.Tensor, frame_rate: float, name: str) -> None:
    """Write the figure to a PNG file."""
    drawn = figure(kept, frame_rate, name)
    drawn.savefig(path)
    pyplot().close(drawn)
