"""Numbers that describe a melody, on notes that are written by hand."""
import pytest

from magnet_plugin.metrics.melody import melody


def test_a_scale_is_in_its_key_and_two_voices_count_twice() -> None:
    scale = [(0.5 * step, 0.5, 62 + pitch) for step, pitch in enumerate((0, 2, 4, 5, 7, 9, 11, 12))]     # D major
    found = melody(scale, 4.0, "D major")
    assert found == {"notes_per_second": 2.0, "in_key": 1.0, "range": 12.0, "voices": 1.0}
    third = [(start, length, pitch + 4) for start, length, pitch in scale]
    assert melody([*scale, *third], 4.0, "D major")["voices"] == pytest.approx(2.0)


def test_the_share_in_key_counts_time_and_not_notes() -> None:
    assert melody([(0.0, 3.0, 60), (3.0, 1.0, 61)], 4.0, "C major")["in_key"] == pytest.approx(0.75)


def test_gaps_are_not_counted_as_voices_and_overlaps_are() -> None:
    notes = [(0.0, 1.0, 60), (0.5, 1.0, 64), (3.0, 1.0, 67)]
    assert melody(notes, 5.0, "C major")["voices"] == pytest.approx(3.0 / 2.5)


def test_silence_has_no_melody() -> None:
    assert melody([], 2.0, "C major") == {"notes_per_second": 0.0, "in_key": 0.0, "range": 0.0, "voices": 0.0}


def test_unknown_keys_are_refused() -> None:
    with pytest.raises(ValueError, match="H major"):
        melody([], 1.0, "H major")
