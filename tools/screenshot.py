"""Take the screenshot of the demo page that README.md shows, with a headless Chromium.

    magnet demo --out demo && python -m tools.screenshot demo/index.html docs/images/demo.png
"""
from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

WINDOW = (1100, 1010)           # pixels: introduction and four clips
COLOURS = 128                   # of the palette, for a small file
FLAGS = ("--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update",
         "--disable-sync", "--no-first-run", "--hide-scrollbars")


def take(page: Path, picture: Path) -> None:
    """Write a PNG picture of the upper part of a page.

    Raises:
        ValueError: there is no such page, or Chromium is not installed.
    """
    from PIL import Image
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        raise ValueError("neither chromium nor google-chrome is installed; install one of them")
    if not page.is_file():
        raise ValueError(f"{page} does not exist; write it with: magnet demo --out {page.parent}")
    picture.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        raw = Path(folder) / "raw.png"
        subprocess.run([browser, *FLAGS, f"--user-data-dir={folder}/profile", f"--window-size={WINDOW[0]},{WINDOW[1]}",
                        f"--screenshot={raw}", page.resolve().as_uri()], check=True, capture_output=True, timeout=120)
        Image.open(raw).convert("RGB").quantize(COLOURS).save(picture, optimize=True)


if __name__ == "__main__":
    take(*map(Path, sys.argv[1:3]))
