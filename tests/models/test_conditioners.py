"""The conditioner of hashed words."""
import torch

from magnet_plugin.data.folk.captions import vocabulary
from magnet_plugin.models.conditioners import WordsConditioner, bin_of, words_of


def test_no_two_words_of_the_folk_captions_share_an_embedding() -> None:
    words = {word for entry in vocabulary() for word in words_of(entry)}
    rows: dict[int, set[str]] = {}
    for word in words:
        rows.setdefault(bin_of(word, 2048), set()).add(word)
    assert len(words) > 40
    clashes = [group for group in rows.values() if len(group) > 1]
    assert not clashes, "these words share an embedding: change conditioners.description.words.n_bins"


def test_padding_and_missing_texts_are_embedded_as_zeros() -> None:
    torch.manual_seed(0)
    conditioner = WordsConditioner(output_dim=8, n_bins=64, dim=4).eval()
    tokens, mask = conditioner.tokenize(["A fast reel, in D!", None, "reel"])
    assert tokens.shape == mask.shape == (3, 5)
    assert mask.sum(-1).tolist() == [5, 0, 1]
    embedded, _ = conditioner((tokens, mask))
    assert (embedded[1] == 0).all() and (embedded[2, 1:] == 0).all() and (embedded[2, 0] != 0).any()
    assert torch.equal(embedded[0, 2], embedded[2, 0])
    assert conditioner.tokenize([None])[0].shape == (1, 1)


def test_words_are_dropped_only_in_training() -> None:
    conditioner = WordsConditioner(output_dim=8, n_bins=64, dim=4, word_dropout=0.5)
    text = ["one two three four five six seven eight"] * 50
    kept = conditioner.train().tokenize(text)[1].float().sum(-1)
    assert 2.5 < kept.mean() < 5.5
    assert (conditioner.eval().tokenize(text)[1].sum(-1) == 8).all()


def test_texts_are_split_into_lower_case_words() -> None:
    assert words_of("A reel in F# minor, at 96 bpm") == ["a", "reel", "in", "f#", "minor", "at", "96", "bpm"]
