"""Gradio, imported only when the page is built, and without its connections to the network."""
import importlib.util
import os
import typing as tp
from pathlib import Path

INSTALL = "pip install 'magnet-plugin[app]'"
#: Read by Gradio and by the hub's client when they are imported.
OFFLINE = {"GRADIO_ANALYTICS_ENABLED": "False", "GRADIO_RUN_HISTORY": "False", "GRADIO_SSR_MODE": "False",
           "HF_HUB_DISABLE_TELEMETRY": "1", "DISABLE_TELEMETRY": "1"}


def require_gradio() -> None:
    """Check that Gradio is installed, without importing it.

    Raises:
        ModuleNotFoundError: it is not installed; the message gives the command that installs it.
    """
    if importlib.util.find_spec("gradio") is None:
        raise ModuleNotFoundError(f"the page needs Gradio, which is not installed: {INSTALL}", name="gradio")


def import_gradio(uploads: Path) -> tp.Any:
    """Import Gradio; it keeps uploads in the folder `uploads`, and sends nothing to anybody."""
    require_gradio()
    os.environ.update(OFFLINE, GRADIO_TEMP_DIR=str(uploads))
    import gradio
    return gradio
