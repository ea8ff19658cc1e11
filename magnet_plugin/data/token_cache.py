"""Codec tokens kept on disk, so that clips which come again unchanged are encoded once.

Worth it where crops repeat: a set of short clips, several epochs, a sweep over the same data. Entries are keyed by the
codec's weights and by the audio itself, so that augmentation or another crop can never meet a wrong entry.
"""
import functools
import hashlib
import os
import typing as tp
from pathlib import Path

import numpy as np
import torch

Encoded = tuple[torch.Tensor, tp.Optional[torch.Tensor]]


def codec_key(codec: torch.nn.Module) -> str:
    """Digest of a codec's weights."""
    digest = hashlib.blake2b(digest_size=8)
    for name, value in sorted(codec.state_dict().items()):
        digest.update(name.encode())
        digest.update(value.detach().cpu().float().numpy().tobytes())
    return digest.hexdigest()


def remember_tokens(codec: tp.Any, folder: tp.Union[str, Path]) -> None:
    """Let `codec.encode` look in `folder` first, and write there what it had to compute.

    Args:
        codec: an AudioCraft CompressionModel without a scale (those of language models have none).
        folder: made if needed; may be shared by processes.
    """
    home = Path(folder) / codec_key(codec)
    home.mkdir(parents=True, exist_ok=True)
    codec.encode = functools.partial(_encode, codec.encode, home)


def _encode(compute: tp.Callable[[torch.Tensor], Encoded], home: Path, audio: torch.Tensor) -> Encoded:
    """Tokens of `audio` [B, C, samples] as Long [B, K, T], and None for the scale."""
    paths = [home / f"{hashlib.blake2b(row.tobytes(), digest_size=16).hexdigest()}.npy"
             for row in audio.detach().cpu().float().numpy()]
    missing = [i for i, path in enumerate(paths) if not path.exists()]
    if missing:
        tokens, scale = compute(audio[missing])
        if scale is not None:
            raise ValueError("cache.tokens needs a codec without a scale (encodec.renormalize=false); set cache.tokens=null")
        for i, row in zip(missing, tokens.cpu().numpy()):
            part = paths[i].with_suffix(f".{os.getpid()}.part")
            with open(part, "wb") as file:
                np.save(file, row.astype(np.int16 if row.max() < 2 ** 15 else np.int64))
            part.replace(paths[i])                   # others see a whole file or none
    rows = [torch.from_numpy(np.load(path).astype(np.int64)) for path in paths]
    return torch.stack(rows).to(audio.device), None
