"""Stereo with a mono codec: AudioCraft's `interleave_stereo_codebooks`, which encodes left and right by themselves.

Each channel becomes K codebooks of T frames. The language model sees both channels' codebooks in turn, [B, 2 K, T], or with
`per_timestep` both channels' frames in turn, [B, K, 2 T] at twice the frame rate.
"""
from audiocraft.models.encodec import CompressionModel, InterleaveStereoCompressionModel
from omegaconf import DictConfig, OmegaConf

from .generation import frames


def codebooks_in_turn(codec: CompressionModel) -> int:
    """Return how many channels' codebooks take turns in a codec's tokens: 2 or 1."""
    return codec.channels if isinstance(codec, InterleaveStereoCompressionModel) and not codec.per_timestep else 1


def frames_in_turn(codec: CompressionModel) -> int:
    """Return how many channels' frames take turns in a codec's tokens: 2 or 1."""
    return codec.channels if isinstance(codec, InterleaveStereoCompressionModel) and codec.per_timestep else 1


def frames_in_turn_of(cfg: DictConfig) -> int:
    """Return the same for the config of a language model."""
    stereo = OmegaConf.select(cfg, "interleave_stereo_codebooks") or {}
    return 2 if stereo.get("use") and stereo.get("per_timestep") else 1


def clip_frames(seconds: float, codec: CompressionModel) -> int:
    """Convert the length of a clip to frames that the codec can decode: as many of each channel."""
    turns = frames_in_turn(codec)
    return turns * frames(seconds, float(codec.frame_rate) / turns)


def check_parallel_channels(codec: CompressionModel, what: str) -> None:
    """Refuse what cuts clips into parts if the channels' frames take turns.

    Raises:
        ValueError: they do; `what` begins the message.
    """
    if frames_in_turn(codec) > 1:
        raise ValueError(f"{what} is not possible with interleave_stereo_codebooks.per_timestep=true; use a model trained "
                         "with per_timestep=false")
