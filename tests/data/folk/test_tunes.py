"""Tunes: reading headers, parsing, the cache, and splits by melody."""
from __future__ import annotations

import gzip
import itertools
import json
from pathlib import Path

import numpy as np
import pytest

from magnet_plugin.data.folk import tunes as module
from magnet_plugin.data.folk.sources import Source, counted_beat, list_sources, read_abc, read_key
from magnet_plugin.data.folk.tunes import (
    CACHE_NAME,
    Notes,
    Tune,
    load_tunes,
    matches_key,
    outline,
    parse,
    split_tunes,
)

SPLITS = {"train": 0.6, "valid": 0.2, "evaluate": 0.2}


def tune(name: str, pitches: list[int], step: float = 0.5) -> Tune:
    source = Source(name, name, "traditional", "reel", 0, "major", 1.0, Path(name))
    return Tune(source, [(i * step, step, pitch) for i, pitch in enumerate(pitches)], [0.0])


def melodies(count: int) -> list[list[int]]:
    rng = np.random.default_rng(0)
    return [[int(p) for p in 60 + np.cumsum(rng.choice([-4, -2, -1, 1, 2, 3], 64))] for _ in range(count)]


def test_a_tune_with_two_names_stays_in_one_split() -> None:
    """Transposed, in other note values or with repeated notes, it is the same tune."""
    originals = [tune(f"a{i}", line) for i, line in enumerate(melodies(100))]
    copies = [tune(f"b{i}", [p + i % 7 for p in line for _ in range(1 + i % 2)], 0.25)
              for i, line in enumerate(melodies(100))]
    parts = split_tunes([*originals, *copies], SPLITS)
    names = {name: {t.source.name[1:] for t in part} for name, part in parts.items()}
    assert not names["train"] & names["valid"] and not names["train"] & names["evaluate"]
    assert not names["valid"] & names["evaluate"]
    assert sum(map(len, parts.values())) == 200, "and none is lost"
    assert 40 <= len(names["train"]) <= 80 and 8 <= len(names["valid"]) <= 35 and 8 <= len(names["evaluate"]) <= 35


def test_a_related_tune_is_dropped_from_the_later_split() -> None:
    originals = [tune(f"a{i}", line) for i, line in enumerate(melodies(100))]
    relatives = [tune(f"b{i}", line[30:]) for i, line in enumerate(melodies(100))]
    parts = split_tunes([*originals, *relatives], SPLITS)
    names = [{t.source.name[1:] for t in part} for part in parts.values()]
    assert not names[0] & names[1] and not names[0] & names[2] and not names[1] & names[2]
    assert 110 < sum(map(len, parts.values())) < 190


def test_split_of_a_tune_does_not_depend_on_the_others() -> None:
    lines = [tune(f"a{i}", line) for i, line in enumerate(melodies(60))]
    everything, some = split_tunes(lines, SPLITS), split_tunes(lines[::3], SPLITS)
    for name in SPLITS:
        assert {t.source.name for t in some[name]} == {t.source.name for t in everything[name]} & {
            t.source.name for t in lines[::3]}


def test_the_set_has_no_tune_in_two_splits(folk: Path) -> None:
    names, notes = {}, {}
    for split in ("train", "valid", "evaluate"):
        facts = [json.loads(path.read_text()) for path in folk.glob(f"audio/{split}/*.json")]
        names[split] = {f["name"] for f in facts}
        notes[split] = {n for f in facts for n in runs([p for _, _, p in f["notes"]])}
    assert all(names.values())
    assert not names["train"] & (names["valid"] | names["evaluate"]) and not names["valid"] & names["evaluate"]
    assert not notes["train"] & (notes["valid"] | notes["evaluate"]) and not notes["valid"] & notes["evaluate"]


def runs(pitches: list[int]) -> set[tuple[int, ...]]:
    steps = [b - a for a, b in itertools.pairwise(pitches) if a != b]
    return {tuple(steps[i:i + 24]) for i in range(len(steps) - 23)}


def test_outline_follows_the_highest_or_lowest_note() -> None:
    notes: Notes = [(0.0, 2.0, 72), (0.0, 1.0, 60), (1.0, 1.0, 64), (2.0, 1.0, 62), (2.0, 1.0, 55)]
    assert outline(notes) == [72, 72, 62]
    assert outline(notes, lowest=True) == [60, 64, 55]
    assert Tune(tune("x", [1]).source, notes, []).voices == 2


def test_a_tune_whose_notes_contradict_its_key_is_not_used() -> None:
    source = tune("x", [60]).source
    line = [60, 62, 64, 65, 67, 69, 71, 72] * 3 + [60]
    assert matches_key(source, tune("x", line).notes)
    assert not matches_key(source, tune("x", [*line, 62]).notes), "does not end on the tonic"
    assert not matches_key(source, tune("x", [61, 63, 66, *line]).notes), "too many strange notes"


@pytest.mark.parametrize(("field", "key"), [
    ("D", (2, "major")), ("Bb", (10, "major")), ("F#m", (6, "minor")), ("Ador", (9, "dorian")),
    ("A Mix", (9, "mixolydian")), ("Emin", (4, "minor")), ("Glyd", None), ("EM", None), ("HP", None), ("D ^g", None),
    ("", None)])
def test_keys_of_abc(field: str, key: tuple[int, str] | None) -> None:
    assert read_key(field) == key


@pytest.mark.parametrize(("kind", "meter", "beat"), [
    ("reel", "2/4", 1.0), ("reel", "C|", 2.0), ("hornpipe", "C", 2.0), ("strathspey", "C", 1.0), ("waltz", "3/4", 1.0),
    ("jig", "6/8", 1.5), ("slip jig", "9/8", 1.5), ("chorale", "4/4", 1.0)])
def test_counted_beat(kind: str, meter: str, beat: float) -> None:
    """A bar of a reel has two beats, in whatever metre it is written."""
    assert counted_beat(kind, meter) == beat


def test_ambiguous_headers_are_skipped() -> None:
    text = "X:1\nT:Some\n  Tune\nR:slipjig\nM:9/8\nL:1/8\nK:D % bright\nabc|"
    source = read_abc("n", Path("p"), "1", text)
    assert source is not None
    assert (source.title, source.kind, source.tonic, source.beat) == ("Some", "slip jig", 2, 1.5)
    for spoiled in (text + "\nK:G\nabc|", text.replace("R:slipjig\n", ""), text.replace("9/8", "5/4"),
                    text + "[M:6/8]"):
        assert read_abc("n", Path("p"), "1", spoiled) is None


def test_sources_have_a_fixed_order_and_unique_names() -> None:
    names = [source.name for source in list_sources()]
    assert len(names) == len(set(names)) > 1500
    assert names == [source.name for source in list_sources()] != sorted(names)
    assert {name.split("/")[0] for name in names[:64]} == {"ryansMammoth", "oneills1850", "bach"}


def test_cached_tunes_are_not_parsed_again(folk: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = load_tunes(64, progress=False)
    monkeypatch.setattr(module, "parallel_map", lambda *_: pytest.fail("parsed again"))
    assert load_tunes(64, progress=False) == first
    assert [path.name for path in cache.glob("*.gz*")] == [CACHE_NAME]


def test_a_damaged_cache_is_replaced(folk: Path, cache: Path, tmp_path: Path,
                                       monkeypatch: pytest.MonkeyPatch) -> None:
    whole = (cache / CACHE_NAME).read_bytes()
    expected = load_tunes(1, progress=False)
    monkeypatch.setenv("MAGNET_CACHE", str(tmp_path))
    for damaged in (whole[:1000], b"", gzip.compress(b"[1]")):
        (tmp_path / CACHE_NAME).write_bytes(damaged)
        assert load_tunes(1, jobs=1, progress=False) == expected


def test_only_ties_between_equal_pitches_join_notes(tmp_path: Path) -> None:
    """Some books write slurs as ties. Grace notes and chord symbols are not notes of the tune."""
    path = tmp_path / "book.abc"
    path.write_text('X:1\nT:A\nM:2/4\nL:1/8\nK:C\nC-D E2-|E2 "Am"{c}A[Ac]|B4|c4|]\n')
    source = Source("a", "A", "traditional", "reel", 0, "major", 1.0, path, "1")
    notes = [(0.0, 0.5, 60), (0.5, 0.5, 62), (1.0, 2.0, 64), (3.0, 0.5, 69), (3.5, 0.5, 69), (3.5, 0.5, 72),
             (4.0, 2.0, 71), (6.0, 2.0, 72)]
    assert parse(source) == ("a", (notes, [0.0, 2.0, 4.0, 6.0]))
    path.write_text("X:1\nK:C\n[[[")
    assert parse(source) == ("a", None)
