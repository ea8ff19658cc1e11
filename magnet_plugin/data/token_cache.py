"""Cache codec tokens on disk, so that audio which repeats is encoded only once.

This pays off if crops repeat: in a data set of short clips over several epochs, or in a sweep over the same data. The key of
an entry is a digest of the codec and of the audio, so other crops, augmented audio or another codec never match.
"""
import functools
import hashlib
import typing as tp
from pathlib import Path

import numpy as np
import torch

from ..environment import atomic_write

Encoded = tuple[torch.Tensor, tp.Optional[torch.Tensor]]


def codec_key(codec: tp.Any) -> str:
    """Return a hexadecimal digest of a codec's weights and of the shape of its tokens, which wrapped codecs change."""
    return weights_key(codec, f"{codec.num_codebooks} {float(codec.frame_rate)}")


def weights_key(model: torch.nn.Module, about: str = "") -> str:
    """Return a hexadecimal digest of a model's weights, and of what else is to tell models apart."""
    digest = hashlib.blake2b(about.encode(), digest_size=8)
    for name, value in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(value.detach().cpu().float().numpy().tobytes())
    return digest.hexdigest()


def cache_tokens(codec: tp.Any, folder: tp.Union[str, Path]) -> None:
    """Replace `codec.encode` by a version that reads tokens from `folder` and writes those it has to compute.

    Args:
        codec: an AudioCraft CompressionModel without a scale, as the codecs of language models are.
        folder: created if needed; several processes may share it.
    """
    entries = Path(folder) / codec_key(codec)
    entries.mkdir(parents=True, exist_ok=True)
    codec.encode = functools.partial(_encode, codec.encode, entries)


def _encode(compute: tp.Callable[[torch.Tensor], Encoded], entries: Path, audio: torch.Tensor) -> Encoded:
    """Return the tokens of `audio` [B, C, samples] as Long [B, K, T], and None as scale.

    Raises:
        ValueError: the codec returns a scale.
    """
    paths = [entries / f"{hashlib.blake2b(row.tobytes(), digest_size=16).hexdigest()}.npy"
             for row in audio.detach().cpu().float().numpy()]
    rows = {i: row for i, path in enumerate(paths) if (row := _read(path)) is not None}
    missing = [i for i in range(len(paths)) if i not in rows]
    if missing:
        tokens, scale = compute(audio[missing])
        if scale is not None:
            raise ValueError(f"cache.tokens={entries.parent}: this codec returns a scale, and only codecs without one "
                             "(encodec.renormalize=false) can be cached; set cache.tokens=null")
        for i, row in zip(missing, tokens.cpu().numpy()):
            rows[i] = row
            with atomic_write(paths[i]) as temporary, open(temporary, "wb") as file:
                np.save(file, row.astype(np.int16 if row.max() < 2 ** 15 else np.int64))
    return torch.from_numpy(np.stack([rows[i] for i in range(len(paths))]).astype(np.int64)).to(audio.device), None


def _read(path: Path) -> tp.Optional[np.ndarray]:
    """Return an entry; None if there is none, or if a crash of the machine has left less than it."""
    try:
        return np.load(path)
    except FileNotFoundError:
        return None
    except (EOFError, ValueError):
        path.unlink(missing_ok=True)
        return None
