"""SoundFonts of the folk set: found by name, drawn per clip, named in the metadata."""
from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from magnet_plugin.data.folk import soundfonts
from magnet_plugin.data.folk.dataset import make_folk
from magnet_plugin.data.folk.render import synthesise

NOTES = [(0.2 * i, 0.19, 60 + i) for i in range(5)]


def test_names_and_paths(tmp_path: Path) -> None:
    default = soundfonts.find(soundfonts.DEFAULT)
    assert default.name == "TimGM6mb.sf2" and soundfonts.find(str(default)) == default
    assert soundfonts.licence("musescore") == "MIT" and soundfonts.licence(str(default)) == "unknown"
    with pytest.raises(ValueError, match=r"no SoundFont .*x\.sf2 at .*; give the path .* or one of timgm6mb, fluidr3"):
        soundfonts.find(str(tmp_path / "x.sf2"))


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    missing = soundfonts.SoundFont(str(tmp_path / "no.sf2"), "MIT", "apt-get install fluid-soundfont-gm")
    monkeypatch.setitem(soundfonts.SOUNDFONTS, "fluidr3", missing)
    with pytest.raises(ValueError, match="no SoundFont fluidr3 at .*; run `apt-get install fluid-soundfont-gm`"):
        make_folk(tmp_path / "out", 3, soundfonts=["fluidr3"])


def test_a_synthesiser_forgets_the_clip_before() -> None:
    first = synthesise(NOTES, 73, 16000, 1.5)
    synthesise([(0.0, 9.0, 40)], 19, 16000, 1.0)         # an organ's note that is still held at the end
    assert np.array_equal(synthesise(NOTES, 73, 16000, 1.5), first)


def test_each_clip_draws_a_soundfont_and_names_it(folk: Path, tmp_path: Path) -> None:
    path = str(soundfonts.find(soundfonts.DEFAULT))
    make_folk(tmp_path / "set", 12, 1, 16000, 1.0, jobs=1, progress=False, soundfonts=[soundfonts.DEFAULT, path])
    facts = [json.loads(file.read_text()) for file in (tmp_path / "set").glob("audio/*/*.json")]
    drawn = {(fact["soundfont"], fact["soundfont_licence"]) for fact in facts}
    assert len(facts) == 12 and drawn == {(soundfonts.DEFAULT, "GPL-2.0"), (path, "unknown")}
    assert not any("soundfont" in json.loads(file.read_text()) for file in folk.glob("audio/*/*.json"))
    with pytest.raises(ValueError, match="holds a folk data set made with .*soundfonts"):
        make_folk(tmp_path / "set", 12, 1, 16000, 1.0)
