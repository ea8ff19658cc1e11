"""The description of machine and versions that is stored with results."""
import subprocess
from pathlib import Path

from magnet_plugin.metrics.machine import made_with


def test_the_commit_of_a_repository_that_contains_an_installation_is_not_reported(tmp_path: Path) -> None:
    def git(*words: str) -> None:
        subprocess.run(["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@b", *words], check=True,
                       capture_output=True)
    (tmp_path / "venv").mkdir()
    (tmp_path / "own.py").write_text("1")
    git("init")
    git("add", "own.py")
    git("commit", "-m", "first")
    assert made_with(tmp_path / "venv", ())["commit"] is None
    own = made_with(tmp_path, ())
    assert len(own["commit"]) == 40 and own["uncommitted_changes"] is False
