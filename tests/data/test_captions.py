"""Captions that are made from names."""
import pytest

from magnet_plugin.data.captions import caption_from_name


@pytest.mark.parametrize("name, caption", [
    ("Irish_Reels/03 - The-Silver_Spear (2).wav", "Irish Reels, The Silver Spear"),
    ("Planxty - The Blacksmith.mp3", "Planxty, The Blacksmith"),
    ("CD 2/Track 7 - Slow air.flac", "Slow air"),
    ("1-07_slow_air_take3.wav", "slow air"),
    ("12 Reel.wav", "Reel"),
    ("003 Reel.wav", "Reel"),
    ("3. Reel.wav", "Reel"),
    ("3 violins.wav", "3 violins"),
    ("120 bpm groove.wav", "120 bpm groove"),
    ("80s synth_001.wav", "80s synth"),
    ("piano/piano.wav", "piano"),
    ("audio/train/door-slam.ogg", "door slam"),
    ("Żurek/дверь.wav", "Żurek, дверь"),
    ("rain/9f86d081884c7d65.wav", "rain"),
    ("0001.wav", None),
    ("audio/07.wav", None)])
def test_names_become_captions(name: str, caption: "str | None") -> None:
    assert caption_from_name(name) == caption
