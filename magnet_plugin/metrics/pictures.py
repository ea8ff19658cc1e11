"""Optional matplotlib, imported only when a picture is drawn."""
import typing as tp

BACKGROUND, FOREGROUND = "#0d0b14", "#cfcbdc"
DPI = 150


def pyplot(purpose: str = "the picture needs matplotlib") -> tp.Any:
    """Import matplotlib's pyplot with the backend that writes files and needs no display.

    Args:
        purpose: first part of the error message if matplotlib is missing.
    Raises:
        ImportError: matplotlib is not installed.
    """
    try:
        import matplotlib
        matplotlib.use("Agg")
        import matplotlib.pyplot as plt
    except ImportError as error:
        raise ImportError(f"{purpose}: pip install matplotlib") from error
    return plt


def clip_axes(width: int, height: int, ylabel: str, purpose: str) -> tuple[tp.Any, tp.Any]:
    """Create a dark figure and its axes for a picture of a clip, with the time in seconds as the horizontal axis.

    Args:
        width, height: in pixels.
        ylabel: label of the vertical axis.
        purpose: first part of the error message if matplotlib is missing.
    """
    figure = pyplot(purpose).figure(figsize=(width / DPI, height / DPI), dpi=DPI, facecolor=BACKGROUND, layout="tight")
    axes = figure.add_subplot(facecolor=BACKGROUND)
    axes.set_xlabel("time (s)", color=FOREGROUND, fontsize=13)
    axes.set_ylabel(ylabel, color=FOREGROUND, fontsize=13)
    axes.tick_params(colors=FOREGROUND, labelsize=12, length=3)
    axes.spines[:].set_visible(False)
    return figure, axes
