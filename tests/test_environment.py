"""Files that the plugin writes for other processes to read."""
import os
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

from magnet_plugin.environment import atomic_write, dora_dir, flush_to_disk, quiet_libraries


def test_readers_see_the_old_file_or_the_complete_new_one(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    path.write_text("old")
    with pytest.raises(KeyboardInterrupt), atomic_write(path) as temporary:
        temporary.write_text("n")
        raise KeyboardInterrupt
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path], "an interrupted write leaves nothing behind"
    with atomic_write(path) as temporary:
        temporary.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new" and list(tmp_path.iterdir()) == [path]


def test_a_durable_file_is_on_the_disk_before_it_is_renamed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    events: list[str] = []
    monkeypatch.setattr(os, "fsync", lambda descriptor: events.append(
        f"{Path(os.readlink(f'/proc/self/fd/{descriptor}')).suffix or 'folder'}, {path.exists()}"))
    for path, durable in ((tmp_path / "one", True), (tmp_path / "other", False)):
        with atomic_write(path, durable) as temporary:
            temporary.write_text("weights")
    assert events == [".part, False", "folder, True"]


def test_only_a_folder_may_fail_to_flush(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(descriptor: int) -> None:
        raise OSError("not supported")

    (tmp_path / "file").touch()
    monkeypatch.setattr(os, "fsync", refuse)
    flush_to_disk(tmp_path)
    with pytest.raises(OSError, match="not supported"):
        flush_to_disk(tmp_path / "file")


def test_the_folder_of_runs_is_audiocrafts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from audiocraft.environment import AudioCraftEnvironment

    import magnet_plugin
    magnet_plugin.register()
    try:
        folders = [("one", "one"), ("one", "two"), ("two", "one")]
        for text in (None, *(f"default: {{dora_dir: {one}}}\naws: {{dora_dir: {two}}}\n" for one, two in folders)):
            if text is not None:
                (tmp_path / "team.yaml").write_text(text)
                monkeypatch.setenv("AUDIOCRAFT_CONFIG", str(tmp_path / "team.yaml"))
            AudioCraftEnvironment.reset()
            assert dora_dir() == AudioCraftEnvironment.get_dora_dir(), text
        monkeypatch.setenv("AUDIOCRAFT_DORA_DIR", "three")
        assert dora_dir() == AudioCraftEnvironment.get_dora_dir() == Path("three")
    finally:
        AudioCraftEnvironment.reset()


def test_the_folder_of_runs_is_found_without_audiocraft() -> None:
    code = ("import sys\nfrom magnet_plugin.environment import dora_dir\nprint(dora_dir())\n"
            "assert not {'torch', 'audiocraft'} & sys.modules.keys()")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout.endswith("/audiocraft_runs\n"), done.stderr


def test_messages_of_libraries_to_their_developers_are_hidden_and_others_are_not() -> None:
    import torch
    from audiocraft.solvers import musicgen
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        quiet_libraries()
        torch.nn.utils.weight_norm(torch.nn.Linear(2, 2))
        assert "Up to version 1.0.1, the _prepare_tokens_and_attributes" in Path(musicgen.__file__).read_text()
        warnings.warn("Up to version 1.0.1, the _prepare_tokens_and_attributes was evaluated with", stacklevel=1)
        warnings.warn("another", FutureWarning, stacklevel=1)
    assert [str(one.message) for one in caught] == ["another"]
