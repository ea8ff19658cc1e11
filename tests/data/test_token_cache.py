"""The cache of codec tokens on disk."""
import typing as tp
from pathlib import Path

import pytest
import torch

from magnet_plugin.data.token_cache import cache_tokens, codec_key

from ..helpers import forked


class Codec(torch.nn.Module):
    """Encodes each hundred samples as their mean, and counts the clips."""
    num_codebooks, frame_rate = 4, 160

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(1))
        self.encoded = 0

    def encode(self, audio: torch.Tensor) -> tuple[torch.Tensor, None]:
        self.encoded += len(audio)
        return (audio.unflatten(-1, (-1, 100)).mean(-1).expand(-1, 4, -1) * 1000 * self.weight).long(), None


def test_each_clip_is_encoded_once_and_tokens_are_the_same(tmp_path: Path) -> None:
    audio = _audio()
    plain, cached = Codec(), Codec()
    cache_tokens(cached, tmp_path)
    for batch in (audio[:3], audio[[2, 4, 0]], audio):
        tokens, scale = cached.encode(batch)
        assert scale is None and torch.equal(tokens, plain.encode(batch)[0])
    assert cached.encoded == 5
    cached.encode(audio * 0.5)
    assert cached.encoded == 10, "other audio is another entry"


def test_another_codec_has_its_own_entries(tmp_path: Path) -> None:
    audio = torch.rand(2, 1, 1000)
    one, two = Codec(), Codec()
    two.weight.data.mul_(2)
    assert codec_key(one) != codec_key(two)
    cache_tokens(one, tmp_path)
    cache_tokens(two, tmp_path)
    assert not torch.equal(one.encode(audio)[0], two.encode(audio)[0]) and two.encoded == 2


@pytest.mark.parametrize("name, value", [("num_codebooks", 8), ("frame_rate", 320)])
def test_the_same_weights_with_another_layout_of_tokens_have_their_own_entries(name: str, value: int) -> None:
    """As AudioCraft's interleaved stereo and `compression_model_n_q` give them."""
    one, two = Codec(), Codec()
    assert codec_key(one) == codec_key(two)
    setattr(two, name, value)
    assert codec_key(one) != codec_key(two)


def test_a_codec_with_a_scale_is_refused(tmp_path: Path) -> None:
    codec = Codec()
    codec.encode = lambda audio: (torch.zeros(1, 4, 10).long(), torch.ones(1))  # type: ignore[method-assign,assignment]
    cache_tokens(codec, tmp_path)
    with pytest.raises(ValueError, match="set cache.tokens=null"):
        codec.encode(torch.zeros(1, 1, 1000))


@pytest.mark.parametrize("share", [0, 0.1, 0.9])
def test_an_entry_that_was_truncated_is_encoded_again(tmp_path: Path, share: float) -> None:
    codec = Codec()
    cache_tokens(codec, tmp_path)
    tokens = codec.encode(_audio())[0]
    entry = next(tmp_path.rglob("*.npy"))
    content = entry.read_bytes()
    entry.write_bytes(content[:int(len(content) * share)])
    assert torch.equal(codec.encode(_audio())[0], tokens) and codec.encoded == 6
    assert entry.read_bytes() == content


def _encode_all(folder: Path, results: tp.Any) -> None:
    codec = Codec()
    cache_tokens(codec, folder)
    for _ in range(50):
        for entry in folder.rglob("*.npy"):
            entry.unlink(missing_ok=True)
        tokens = codec.encode(_audio())[0]
    results.put(tokens.tolist())


def _audio() -> torch.Tensor:
    return torch.rand(5, 1, 1000, generator=torch.Generator().manual_seed(0))


def test_processes_that_share_a_cache_read_whole_entries(tmp_path: Path) -> None:
    """They write the same entries at once, and remove each other's."""
    results = forked.CONTEXT.Queue()
    processes = [forked.CONTEXT.Process(target=_encode_all, args=(tmp_path, results)) for _ in range(3)]
    for process in processes:
        process.start()
    first, *others = (results.get(timeout=60) for _ in processes)
    for process in processes:
        process.join(60)
        assert process.exitcode == 0
    assert all(tokens == first for tokens in others) and first == Codec().encode(_audio())[0].tolist()
    assert len(list(tmp_path.rglob("*.npy"))) == len(_audio()) and not list(tmp_path.rglob("*.part"))
