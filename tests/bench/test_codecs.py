"""`magnet bench codec`: scores of codecs, with judges that this test makes up."""
import json
from pathlib import Path

import pytest
import torch

from magnet_plugin.bench import codecs, table
from magnet_plugin.cli.main import main


class Transcriber:
    """Hears a note of pitch 60 in loud clips, one of pitch 61 in quiet ones."""

    def transcribe(self, wav: torch.Tensor, sample_rate: int) -> list[tuple[float, float, int]]:
        return [(0.0, 1.0, 60 if wav.abs().max() > 0.1 else 61)]


class Codec(torch.nn.Module):
    """Halves what it encodes."""

    sample_rate, channels, frame_rate, num_codebooks, cardinality = 16000, 1, 50, 4, 512

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.full((3,), 0.5))

    def encode(self, x: torch.Tensor) -> tuple[torch.Tensor, None]:
        return x, None

    def decode(self, codes: torch.Tensor, scale: None = None) -> torch.Tensor:
        return codes * self.weight[0]


@pytest.fixture
def splits(tmp_path: Path) -> tuple[Path, Path]:
    """Eight clips: one loud, the others too quiet after the codec."""
    import soundfile
    lines = []
    for i in range(8):
        path = tmp_path / f"{i}.wav"
        tone = torch.sin(torch.arange(16000) * (0.05 + 0.3 * (i % 2)))
        soundfile.write(path, (0.5 if i == 0 else 0.15) * tone.numpy(), 16000)
        path.with_suffix(".json").write_text(json.dumps({"instrument": "ab"[i % 2], "notes": [[0.0, 1.0, 60]]}))
        lines.append({"path": str(path), "duration": 1.0, "sample_rate": 16000, "amplitude": 0.5, "weight": None})
    folder = tmp_path / "egs"
    from magnet_plugin.data.manifests import write_manifest
    write_manifest(folder, lines)
    return folder, folder


def test_scores_of_a_codec_and_their_table(splits: tuple[Path, Path], tmp_path: Path,
                                           monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("mir_eval")
    monkeypatch.setattr(codecs, "NoteTranscriber", Transcriber)
    monkeypatch.setattr(codecs, "load_codec", lambda name: Codec())
    monkeypatch.setattr(codecs, "cross_entropy", lambda name, updates, overrides: 2.5)
    path = codecs.measure({"half": "x"}, splits, 8, 8, 7, [], lambda text: None, tmp_path)
    rows = json.loads(path.read_text())["cases"][0]["rows"]
    assert rows["real clips"] == {"notes_written": 1.0, "instruments": 1.0}
    half = rows["half"]
    assert half["notes_recovered"] == half["notes_written"] == pytest.approx(1 / 8)
    assert (half["kbps"], half["parameters"], half["cross_entropy"]) == (1.8, 3, 2.5)
    assert half["instruments"] == 1 and half["si_snr_db"] > 50 and half["mel_db"] > 0.3
    text = table.write(tmp_path).read_text()
    assert "| real clips | – | – | – | 1 | 1 |" in text and "| half | 1.8 | 3 | 0.125 | 0.125 | 1 |" in text


def test_a_codec_needs_a_label(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "codec", "//bundled/codec-16khz", "--out", str(tmp_path)]) == 2
    assert "//bundled/codec-16khz has no label; give LABEL=NAME" in capsys.readouterr().err
