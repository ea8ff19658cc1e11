"""The progress bar names codebook and step."""
import pytest

from magnet_plugin.models import progress


def test_steps_of_several_windows_are_one_sequence(capsys: pytest.CaptureFixture[str]) -> None:
    with progress.Progress(True, label="2/5 a reel") as bar:
        for remaining, steps_of, total in ((5, [], 3), (3, [0, 2], 2), (0, [1, 2], 3)):
            report = bar.part(remaining, steps_of)
            assert report is not None
            for done in range(1, total + 1):
                report(done, total)
                assert bar._bar.postfix == progress.place(done, total, steps_of)
        assert (bar._bar.n, bar._bar.total, bar._bar.desc) == (8, 8, "2/5 a reel")
    assert "2/5 a reel: 100%" in capsys.readouterr().err


def test_places() -> None:
    assert [progress.place(done, 6, [0, 2, 1]) for done in range(1, 7)] == [
        "frame 1/3", "frame 2/3", "frame 3/3", "codebook 2/3, step 1/2", "codebook 2/3, step 2/2", "codebook 3/3, step 1/1"]
