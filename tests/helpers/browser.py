"""The browser of the host, for tests of pages."""
import importlib.util
import os
import typing as tp

CHROMIUM = "/usr/bin/chromium"
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update", "--disable-sync",
         "--no-first-run"]


def missing() -> tp.Optional[str]:
    """Say what is missing for tests in a browser; None if nothing is."""
    for package, command in (("gradio", "pip install 'magnet-plugin[app]'"), ("playwright", "pip install playwright")):
        if importlib.util.find_spec(package) is None:
            return f"{package} is not installed: {command}"
    return None if os.access(CHROMIUM, os.X_OK) else f"{CHROMIUM} is not installed: apt-get install chromium"
