"""matplotlib, for pictures that go into files. Imports it only when asked to."""
import typing as tp


def pyplot(trouble: str = "the picture needs matplotlib") -> tp.Any:
    """matplotlib's pyplot, without a screen.

    Args:
        trouble: what is said, before the remedy, where matplotlib is missing.
    Raises:
        ImportError: it is missing.
    """
    try:
        import matplotlib
        matplotlib.use("Agg")
        import matplotlib.pyplot as plt
    except ImportError as error:
        raise ImportError(f"{trouble}: pip install matplotlib") from error
    return plt
