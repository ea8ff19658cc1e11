"""Audio of any length through a codec, piece by piece."""
import math
import typing as tp

import pytest
import torch
from hypothesis import strategies as st

import magnet_plugin
from tests.helpers.drawn import drawn
from tests.helpers.toy_codec import ToyCodec

magnet_plugin.register()
from audiocraft.models.encodec import (  # noqa: E402
    EncodecModel,
    HFEncodecCompressionModel,
)
from audiocraft.modules.seanet import SEANetDecoder, SEANetEncoder  # noqa: E402
from audiocraft.quantization import ResidualVectorQuantizer  # noqa: E402

from magnet_plugin.models import codec_chunks  # noqa: E402
from magnet_plugin.models.codec_chunks import AudioStream, decode, encode, hop_length  # noqa: E402
from magnet_plugin.models.loaders import load_codec  # noqa: E402
from magnet_plugin.models.stft_codec import STFTDecoder, STFTEncoder  # noqa: E402

HOP, RATE = 16, 50
PIECE, MARGIN = 6, 2                                            # frames


@pytest.fixture
def short_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(codec_chunks, "PIECE", PIECE / RATE)
    monkeypatch.setattr(codec_chunks, "MARGIN", MARGIN / RATE)


def noise(samples: int, seed: int = 0, batch: int = 1) -> torch.Tensor:
    return torch.rand(batch, 1, samples, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def encodec(kind: str) -> EncodecModel:
    """An untrained codec of convolutions, with or without an LSTM, or one that accumulates phase."""
    torch.manual_seed(0)
    if kind == "stft":
        encoder: tp.Any = STFTEncoder(8, 16, 1, HOP, [32])
        decoder: tp.Any = STFTDecoder(8, 16, 1, HOP)
    else:
        arguments: dict[str, tp.Any] = dict(channels=1, dimension=8, n_filters=2, ratios=[4, 4], lstm=2 * (kind == "lstm"))
        encoder, decoder = SEANetEncoder(**arguments), SEANetDecoder(**arguments)
    quantizer = ResidualVectorQuantizer(dimension=8, n_q=4, bins=32)
    codec = EncodecModel(encoder, decoder, quantizer, frame_rate=RATE, sample_rate=HOP * RATE, channels=1)
    quantizer(encoder(noise(HOP * 200)), RATE)                  # fills the codebooks
    return codec.eval()


@drawn(40, 400, samples=st.integers(1, 40 * HOP), seed=st.integers(0, 99))
def test_pieces_give_what_the_whole_gives(short_pieces: None, samples: int, seed: int) -> None:
    codec, audio = ToyCodec(HOP, RATE), noise(samples, seed, batch=2)
    whole = codec.encode(audio)[0]
    tokens = encode(codec, audio)
    assert torch.equal(tokens, whole) and tokens.shape[-1] == math.ceil(samples / HOP)
    assert (decode(codec, tokens) - codec.decode(whole)).abs().max() < 1e-6
    assert max(codec.lengths[1:-1]) <= PIECE + 2 * MARGIN, "memory does not grow with the length"


@drawn(40, 400, length=st.integers(1, 40), start=st.integers(0, 39), stop=st.integers(1, 40))
def test_a_part_of_a_clip_is_decoded_with_what_surrounds_it(short_pieces: None, length: int, start: int, stop: int) -> None:
    start, stop = start % length, min(max(stop, start % length + 1), length)
    codec = encodec("conv")
    tokens = torch.randint(0, 32, (1, 4, length), generator=torch.Generator().manual_seed(length))
    with torch.no_grad():
        whole = codec.decode(tokens)
    part = decode(codec, tokens, start, stop)
    assert part.shape[-1] == (stop - start) * HOP
    assert (part - whole[..., start * HOP:stop * HOP]).abs().max() < 5e-2 * whole.abs().max()


@drawn(30, 300, length=st.integers(1, 50), cuts=st.lists(st.integers(1, 50), max_size=8))
def test_the_pieces_of_a_stream_join_to_the_clip(short_pieces: None, length: int, cuts: list[int]) -> None:
    """Frames that are not final yet are never read."""
    codec = ToyCodec(HOP, RATE)
    tokens = torch.randint(0, 40, (2, 4, length), generator=torch.Generator().manual_seed(0))
    pieces: list[tuple[torch.Tensor, float]] = []
    stream = AudioStream(codec, lambda audio, start: pieces.append((audio, start)))
    for final in sorted({*(cut for cut in cuts if cut < length), length}):
        shown = tokens.clone()
        shown[..., final:] = -1000
        stream.push(shown, final)
        delivered = sum(audio.shape[-1] for audio, _ in pieces) / HOP
        assert delivered == (length if final == length else max(final - MARGIN, 0)), "all that has its margin"
    assert torch.equal(torch.cat([audio for audio, _ in pieces], dim=-1), stream.audio())
    assert (stream.audio() - codec.decode(tokens)).abs().max() < 1e-6
    starts = [sum(audio.shape[-1] for audio, _ in pieces[:n]) / HOP / RATE for n in range(len(pieces))]
    assert [start for _, start in pieces] == pytest.approx(starts)
    assert max(codec.lengths[:-1]) <= PIECE + 2 * MARGIN


def test_a_codec_without_lstm_is_cut_without_a_trace_and_one_with_an_lstm_nearly_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(codec_chunks, "PIECE", 1.0)
    for kind, bound in (("conv", 1e-6), ("lstm", 1e-3)):
        codec, audio = encodec(kind), noise(HOP * RATE * 4 + 5)
        with torch.no_grad():
            tokens = codec.encode(audio)[0]
            whole = codec.decode(tokens)
        assert (encode(codec, audio) == tokens).float().mean() > (0.999 if kind == "conv" else 0.98), kind
        assert (decode(codec, tokens) - whole).abs().max() < bound * whole.abs().max(), kind


def test_pieces_of_a_decoder_that_accumulates_phase_are_joined_without_a_jump(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a cross-fade, the wave starts at another phase in each piece."""
    monkeypatch.setattr(codec_chunks, "PIECE", 1.0)
    codec, joins = encodec("stft"), [HOP * RATE * n for n in (1, 2, 3)]
    tokens = torch.randint(0, 32, (8, 4, 4 * RATE), generator=torch.Generator().manual_seed(0))

    def jumps() -> float:
        """The mean step at a join, against that of the rest."""
        steps = decode(codec, tokens).diff(dim=-1).abs()[:, 0]
        return float(steps[:, [at - 1 for at in joins]].mean() / steps.mean())

    assert jumps() < 1.5
    power = decode(codec, tokens)[:, 0].square().mean(dim=0)
    around = torch.stack([power[at:at + HOP].mean() for at in joins]).mean()
    assert 0.5 < around / power.mean() < 2, "neither a hole nor a bump"
    monkeypatch.setattr(codec_chunks, "_joined", lambda tail, audio: audio)
    assert jumps() > 1.5, "the test hears what it is about"


@pytest.mark.parametrize("samples", [1, 15, 16, 17, 799, 800, 801])
def test_the_last_frame_of_encodec_may_be_partial(samples: int) -> None:
    """Of AudioCraft's and of Hugging Face's."""
    from transformers import EncodecConfig
    from transformers import EncodecModel as HFEncodec
    torch.manual_seed(0)
    config = EncodecConfig(target_bandwidths=[1.0], sampling_rate=HOP * RATE, upsampling_ratios=[4, 4], num_filters=2,
                           hidden_size=8, codebook_size=32, codebook_dim=8, num_lstm_layers=1, normalize=False)
    for codec in (encodec("conv"), encodec("stft"), HFEncodecCompressionModel(HFEncodec(config).eval())):
        tokens = encode(codec, noise(samples))
        assert tokens.shape[-1] == math.ceil(samples / HOP) and decode(codec, tokens).shape[-1] == tokens.shape[-1] * HOP


def test_short_clips_need_no_whole_number_of_samples_in_a_frame() -> None:
    codec = encodec("conv")
    codec.frame_rate = 49                                       # AudioCraft rounds frame rates down
    tokens = encode(codec, noise(HOP * 30))
    assert tokens.shape[-1] == 30 and decode(codec, tokens).shape[-1] == HOP * 30
    with pytest.raises(ValueError, match="a frame of this codec has 16.3265 samples"):
        decode(codec, tokens, 1)
    with pytest.raises(ValueError, match="need a whole number"):
        encode(codec, noise(HOP * RATE * 31))
    assert hop_length(ToyCodec(HOP, RATE)) == HOP


def test_codecs_that_cannot_be_cut_are_refused() -> None:
    rescaling = encodec("conv")
    rescaling.renormalize = True
    with pytest.raises(ValueError, match="rescales its input"):
        encode(rescaling, noise(100))


@pytest.mark.integ
def test_the_bundled_codec_is_cut_without_a_trace() -> None:
    codec = load_codec("//bundled/codec-16khz")
    time = torch.arange(int(70.013 * codec.sample_rate)) / codec.sample_rate
    tune = torch.sin(2 * math.pi * 220 * (1 + (4 * time).long() % 7 / 7) * time)
    audio = 0.3 * tune + 0.01 * noise(len(time))                # [1, 1, samples]
    with torch.no_grad():
        tokens = codec.encode(audio)[0]
        whole = codec.decode(tokens)
    assert torch.equal(encode(codec, audio), tokens)
    assert (decode(codec, tokens) - whole).abs().max() < 1e-6 * whole.abs().max()
