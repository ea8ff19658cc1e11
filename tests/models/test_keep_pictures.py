"""Pictures of masks: text for a terminal, and PNG files."""
from pathlib import Path

import matplotlib.image
import numpy as np

from magnet_plugin.models import keep
from magnet_plugin.models.keep import Clip


def test_text_shows_each_codebook_over_time() -> None:
    mask = keep.prefix(0.4) | keep.every(10) & keep.codebooks(1)
    assert mask.picture(Clip(2, 40, 20)).splitlines() == [
        "24% of 80 tokens kept by (prefix(0.4) | (every(10) & codebooks(1)))",
        "codebook 2   ████████································",
        "codebook 1   ████████··█·········█·········█·········",
        "seconds      0         0.5       1         1.5       2"]


def test_columns_of_several_frames_are_full_mixed_or_empty() -> None:
    lines = keep.prefix(1.0).picture(Clip(1, 150, 50), width=8).splitlines()
    assert lines[1] == "codebook 1   ██▒·····"
    lines = keep.every(10).picture(Clip(4, 15000, 50, batch=2), sample=1).splitlines()
    assert lines[4] == "codebook 1   " + "▒" * 72 and lines[-1].split() == ["seconds", "0", "60", "120", "180", "240", "300"]


def test_png_shows_codebook_1_at_the_bottom_and_time_from_the_left(tmp_path: Path) -> None:
    clip = Clip(4, 500, 50)
    (keep.prefix(2.5) & keep.codebooks(2)).save(tmp_path / "mask.png", clip)
    pixels = matplotlib.image.imread(tmp_path / "mask.png")[..., :3]
    assert pixels.shape[:2] == (360, 1080)

    def where(colour: str) -> np.ndarray:
        rgb = np.array([int(colour[i:i + 2], 16) for i in (1, 3, 5)]) / 255
        found = np.argwhere((np.abs(pixels - rgb) < 0.02).all(axis=-1))
        return found[found[:, 0] < 260]                                  # without the legend

    from magnet_plugin.models.keep_pictures import FREE_COLOUR, KEPT_COLOUR
    kept, free = where(KEPT_COLOUR), where(FREE_COLOUR)
    share = len(kept) / (len(kept) + len(free))
    assert abs(share - 0.125) < 0.01
    assert kept[:, 0].min() > np.median(free[:, 0]) and kept[:, 1].max() < free[:, 1].max() - 500
