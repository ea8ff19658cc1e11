import pytest

import magnet_plugin

magnet_plugin.register()
from magnet_plugin.models.texts import Texts  # noqa: E402


@pytest.mark.parametrize("bpm, key, expected", [
    (None, None, "a reel"), (90, None, "a reel at 90 bpm"), (92.5, "d MAJOR", "a reel in D major at 92.5 bpm"),
    (None, "F# minor", "a reel in F sharp minor"), (None, "Bb dorian", "a reel in B flat dorian"),
    (None, "b flat major", "a reel in B flat major"), (None, "B minor", "a reel in B minor"),
    (None, "A♭ lydian", "a reel in A flat lydian"),
])
def test_wishes_become_words_of_the_captions(bpm: float | None, key: str | None, expected: str) -> None:
    assert Texts.read(["a reel", "a reel"]).with_wishes(bpm, key).descriptions == (expected, expected)


@pytest.mark.parametrize("bpm, key", [(0, None), (1000, None), ("120", None), (True, None), (float("nan"), None),
                                      (None, "H major"),
                                      (None, "D"), (None, "D majestic"), (None, ""), (None, "Dmajor")])
def test_invalid_wishes_are_refused(bpm: object, key: str | None) -> None:
    with pytest.raises(ValueError, match="bpm=|key="):
        Texts.read(["a reel"]).with_wishes(bpm, key)      # type: ignore[arg-type]


def test_a_sample_without_a_description_cannot_have_wishes() -> None:
    with pytest.raises(ValueError, match="a sample has none"):
        Texts.read([None, "a reel"]).with_wishes(bpm=90)
    assert Texts.read([None, "a reel"]).with_wishes().descriptions == (None, "a reel")


def test_the_words_are_those_of_the_bundled_models_captions() -> None:
    from magnet_plugin.data.folk.captions import vocabulary
    words = set(vocabulary())
    for text in Texts.read(["a fast reel"]).with_wishes(120, "F# minor").descriptions:
        assert text is not None and set(text.lower().split()) <= words
