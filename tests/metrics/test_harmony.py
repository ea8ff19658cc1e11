"""Chroma and keys, on tones whose pitches are known."""
import pytest
import torch

from magnet_plugin.metrics.harmony import chroma, chroma_distance, estimate_key, in_key

RATE = 16000
C_MAJOR = (0, 2, 4, 5, 7, 9, 11, 12)


def melody(pitches: tuple[int, ...], tonic: int = 60, seconds: float = 0.5) -> torch.Tensor:
    """Tones in a row, [1, 1, samples], at pitches in semitones above a MIDI number."""
    time = torch.arange(int(RATE * seconds)) / RATE
    hertz = [440 * 2 ** ((tonic + pitch - 69) / 12) for pitch in pitches]
    return torch.cat([torch.sin(2 * torch.pi * frequency * time) for frequency in hertz])[None, None]


@pytest.mark.parametrize("octave", [0, 12, 24])
def test_each_semitone_has_its_pitch_class(octave: int) -> None:
    for pitch in range(12):
        energy = chroma(melody((pitch + octave,)), RATE).sum(-1)[0]
        assert int(energy.argmax()) == pitch and float(energy.max() / energy.sum()) > 0.9, pitch


def test_the_distance_follows_pitches_over_time_and_not_level() -> None:
    one, other = chroma(melody((0, 4, 7)), RATE), chroma(melody((7, 4, 0)), RATE)
    assert float(chroma_distance(one, 0.01 * one)) == pytest.approx(0, abs=1e-5)
    assert 0.5 < float(chroma_distance(one, other)) < 0.8, "two notes of three are others"
    assert float(chroma_distance(one, chroma(melody((1, 5, 8)), RATE))) > 0.9


def test_a_frame_that_only_one_has_counts_fully_and_a_silent_one_not_at_all() -> None:
    one = chroma(melody((0, 0, 0, 0)), RATE)
    half = one.clone()
    half[..., one.shape[-1] // 2:] = 0
    share = (one.shape[-1] - one.shape[-1] // 2) / one.shape[-1]
    assert float(chroma_distance(one, half)) == pytest.approx(share, abs=1e-5)
    assert float(chroma_distance(half, half)) == pytest.approx(0, abs=1e-5)
    assert float(chroma_distance(0 * one, 0 * one)) == 0


def test_keys_are_recognised_in_all_transpositions() -> None:
    major, minor = (0, 4, 7, 0, 5, 9, 7, 11, 2, 4, 0), (0, 3, 7, 0, 5, 8, 7, 10, 2, 3, 0)
    from magnet_plugin.data.folk.captions import TONICS
    for tonic in range(0, 12, 5):
        energy = torch.cat([chroma(melody(tune, 60 + tonic, 0.3), RATE).sum(-1) for tune in (major, minor)])
        assert estimate_key(energy) == [f"{TONICS[tonic]} major", f"{TONICS[tonic]} minor"]
        assert float(in_key(energy[0], f"{TONICS[tonic]} major")) > 0.9
        assert float(in_key(energy[0], f"{TONICS[(tonic + 6) % 12]} major")) < 0.5


def test_errors() -> None:
    with pytest.raises(ValueError, match="key='H major' must be one of C, D flat"):
        in_key(torch.ones(12), "H major")
    with pytest.raises(ValueError, match="must have the same shape"):
        chroma_distance(torch.ones(1, 12, 3), torch.ones(1, 12, 4))
    with pytest.raises(ValueError, match=r"wav \[1, 100\] must have the shape"):
        chroma(torch.ones(1, 100), RATE)
