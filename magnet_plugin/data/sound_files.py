"""Whether an audio file can be read, and samples as AudioCraft needs them."""
from __future__ import annotations

import typing as tp
from pathlib import Path

if tp.TYPE_CHECKING:
    import torch


class Header(tp.NamedTuple):
    """Duration in seconds, sample rate in Hz and number of channels of an audio file."""

    seconds: float
    sample_rate: int
    channels: int


def probe_file(path: Path) -> Header | str:
    """Open an audio file and read its beginning and its end; return in one line what is wrong if that fails.

    The end shows what the header does not: a FLAC file that was cut off still states its whole length.
    """
    import soundfile  # type: ignore[import-untyped]
    try:
        with soundfile.SoundFile(str(path)) as file:
            header = Header(file.frames / file.samplerate, file.samplerate, file.channels)
            if file.frames == 0 or len(file.read(1024)) == 0:
                return f"{path}: contains no samples"
            if file.format == "FLAC" and path.suffix.lower() not in (".flac", ".ogg"):
                return f"{path}: is a FLAC file, which AudioCraft cannot read by this name; rename it to {path.stem}.flac"
            file.seek(max(0, file.frames - 1024))
            file.read(1024)
    except UnicodeError:
        return f"{path}: its name is not valid UTF-8; rename it"
    except (RuntimeError, OSError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        return f"{path}: {reason if 'opening' in reason else f'cannot be read to its end ({reason})'}" if path.exists() \
            else f"{path}: no such file"
    return header


def to_float32(wav: torch.Tensor) -> torch.Tensor:
    """Convert samples of any format of WAV files to float32 from -1 to 1; a replacement for AudioCraft's `f32_pcm`.

    Raises:
        ValueError: the dtype is none that a decoder returns.
    """
    import torch
    if wav.dtype.is_floating_point:
        return wav.float()
    if wav.dtype == torch.uint8:            # 8-bit WAV files are unsigned
        return (wav.float() - 2 ** 7) / 2 ** 7
    if wav.dtype not in (torch.int16, torch.int32):
        raise ValueError(f"samples of dtype {wav.dtype} are not supported; convert the file to 16 bits")
    return wav.float() / 2 ** (15 if wav.dtype == torch.int16 else 31)
