from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from magnet_plugin.data.folk.dataset import make_folk

ARGUMENTS: dict[str, Any] = {"clips": 36, "seed": 1, "sample_rate": 16000, "duration": 2.0}


@pytest.fixture(scope="session", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A separate cache folder, empty at first."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("cache")
        patch.setenv("MAGNET_CACHE", str(folder))
        yield folder


@pytest.fixture(scope="session")
def arguments() -> dict[str, Any]:
    """Arguments of the small folk set."""
    return dict(ARGUMENTS)


@pytest.fixture(scope="session")
def folk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small folk set, made with an empty cache and two processes (its tunes take music21 10 to 20 s)."""
    out = tmp_path_factory.mktemp("folk") / "set"
    make_folk(out, **ARGUMENTS, jobs=2, progress=False)
    return out


@pytest.fixture(scope="session")
def clips(folk: Path) -> list[tuple[dict[str, Any], np.ndarray]]:
    """Metadata and audio of all clips of the small folk set."""
    return [(json.loads(path.read_text()), soundfile.read(path.with_suffix(".wav"))[0])
            for path in sorted(folk.glob("audio/*/*.json"))]


@pytest.fixture
def audio(tmp_path: Path) -> Path:
    """A user's folder: six good files in two subfolders, a damaged one, and one in an unsupported format."""
    folder = tmp_path / "mine"
    for number in range(6):
        path = folder / ("one" if number < 3 else "two") / f"take {number}.{'wav' if number % 2 else 'FLAC'}"
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, np.sin(np.arange(8000 * (number + 1)) * 0.1) * 0.5, 8000)
    (folder / "one" / "broken.wav").write_bytes(b"RIFF but not audio")
    (folder / "two" / "phone.m4a").write_bytes(b"")
    return folder
