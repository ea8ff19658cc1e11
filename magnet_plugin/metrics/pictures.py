"""Optional matplotlib, imported only when a picture is drawn."""
import typing as tp


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
