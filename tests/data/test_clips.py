"""Reading the clips of a manifest folder."""
import gzip
import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from magnet_plugin.data.clips import batches, load_audio, read_clips
from magnet_plugin.data.manifests import write_manifest


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Five clips with a length of 1, 1, 1, 2 and 1 tenths of a second."""
    lines = []
    for number, tenths in enumerate((1, 1, 1, 2, 1)):
        path = tmp_path / f"{number}.wav"
        soundfile.write(path, np.full(800 * tenths, number / 10), 8000)
        path.with_suffix(".json").write_text(json.dumps({"instrument": "flute"}))
        lines.append(json.dumps({"path": str(path)}))
    (tmp_path / "data.jsonl.gz").write_bytes(gzip.compress("\n".join(lines).encode()))
    return tmp_path


def test_batches_keep_order_and_never_pad(folder: Path) -> None:
    seen = [([int(clip.path.stem) for clip in clips], tuple(wav.shape)) for clips, wav in
            batches(read_clips(folder), 8000, 2)]
    assert seen == [([0, 1], (2, 1, 800)), ([2], (1, 1, 800)), ([3], (1, 1, 1600)), ([4], (1, 1, 800))]
    (clips, wav), *_ = batches(read_clips(folder), 8000, 2)
    assert clips[1].field("instrument") == "flute" and torch.allclose(wav[1], torch.tensor(0.1), atol=1e-4)


def test_limit_and_errors(folder: Path, tmp_path: Path) -> None:
    assert len(read_clips(folder)) == 5 and [clip.path.stem for clip in read_clips(folder, 2)] == ["0", "1"]
    with pytest.raises(ValueError, match="limit=0"):
        read_clips(folder, 0)
    with pytest.raises(ValueError, match=r"0.json has no `bpm`"):
        read_clips(folder, 1)[0].field("bpm")
    with pytest.raises(ValueError, match="lists no clips"):
        read_clips(write_manifest(tmp_path / "empty", []))


def test_stereo_is_mixed_down_and_resampled(tmp_path: Path) -> None:
    stereo = np.stack([np.full(8000, 0.5), np.full(8000, -0.1)], axis=1)
    soundfile.write(tmp_path / "a.wav", stereo, 8000)
    wav = load_audio(tmp_path / "a.wav", 16000)
    assert wav.shape == (1, 16000) and torch.allclose(wav[0, 4000:12000], torch.tensor(0.2), atol=1e-3)
