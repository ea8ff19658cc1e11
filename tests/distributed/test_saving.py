"""Checkpoints are on the disk before they replace the previous ones."""
import os
from pathlib import Path

import flashy
import pytest
import torch
from audiocraft.utils import checkpoint

import magnet_plugin
from magnet_plugin.distributed import saving


@pytest.mark.parametrize("is_sharded", (False, True))
def test_a_checkpoint_is_on_the_disk_before_it_replaces_the_previous_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                                                         is_sharded: bool) -> None:
    magnet_plugin.register()
    events: list[str] = []
    fsync, replace = os.fsync, Path.replace

    def flushed(descriptor: int) -> None:
        events.append("flush " + Path(os.readlink(f"/proc/self/fd/{descriptor}")).name)
        fsync(descriptor)

    def replaced(path: Path, target: Path) -> Path:
        if target.name == "checkpoint.th.previous":
            assert torch.load(path) == {"epoch": 1}
        else:
            assert torch.load(path) == {"epoch": 2} and torch.load(target) == {"epoch": 1}
        events.append(f"rename to {target.name}")
        return replace(path, target)

    monkeypatch.setattr(os, "fsync", flushed)
    monkeypatch.setattr(Path, "replace", replaced)
    monkeypatch.setattr(flashy.distrib, "barrier", lambda: events.append(
        "barrier, marked" if (path.parent / "checkpoint.th.tmp.done").exists() else "barrier"))
    path = tmp_path / "run" / "checkpoint.th"
    path.parent.mkdir()
    torch.save({"epoch": 1}, path)
    checkpoint.save_checkpoint({"epoch": 2}, path, is_sharded)
    steps = ["barrier", "flush checkpoint.th.tmp", "barrier", "flush run", "barrier, marked", "rename to checkpoint.th",
             "flush run", "barrier, marked"]
    assert events == (steps if is_sharded else ["flush checkpoint.th.tmp", "rename to checkpoint.th.previous",
                                              "rename to checkpoint.th", "flush run"])
    assert torch.load(path) == {"epoch": 2}
    assert sorted(os.listdir(path.parent)) == ["checkpoint.th"] + ["checkpoint.th.previous"] * (not is_sharded)
    assert is_sharded or torch.load(path.parent / "checkpoint.th.previous") == {"epoch": 1}


def test_only_the_run_s_own_checkpoint_keeps_the_one_before_it(tmp_path: Path) -> None:
    for name in ("preempted.th", "checkpoint_3.th"):
        for epoch in (1, 2):
            saving.save_checkpoint({"epoch": epoch}, tmp_path / name)
    assert sorted(os.listdir(tmp_path)) == ["checkpoint_3.th", "preempted.th"]


def test_a_full_disk_leaves_the_checkpoint_as_it_was_and_names_the_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch
                                                                          ) -> None:
    path = tmp_path / "checkpoint.th"
    saving.save_checkpoint({"epoch": 1}, path)

    def fail(state: dict, file: Path) -> None:
        file.write_bytes(b"half")
        raise RuntimeError("PytorchStreamWriter failed writing file data/0: file write failed")
    monkeypatch.setattr(torch, "save", fail)
    with pytest.raises(OSError, match="checkpoint.th cannot be written, with .* MB left on its disk; free some"):
        saving.save_checkpoint({"epoch": 2}, path)
    assert torch.load(path) == {"epoch": 1} and os.listdir(tmp_path) == ["checkpoint.th"]


def test_what_a_killed_process_left_is_removed(tmp_path: Path) -> None:
    for name in ("checkpoint.th", "checkpoint.th.tmp", "checkpoint.th.previous", "checkpoint.th.previous.tmp", "other.tmp"):
        (tmp_path / name).touch()
    saving.remove_unfinished(tmp_path / "checkpoint.th")
    assert sorted(os.listdir(tmp_path)) == ["checkpoint.th", "checkpoint.th.previous", "other.tmp"]


def test_a_checkpoint_that_is_kept_twice_leaves_no_other_name(tmp_path: Path) -> None:
    """As after a kill between keeping the previous checkpoint and replacing it."""
    path = tmp_path / "checkpoint.th"
    saving.save_checkpoint({"epoch": 1}, path)
    saving.previous(path).hardlink_to(path)
    saving.save_checkpoint({"epoch": 2}, path)
    assert sorted(os.listdir(tmp_path)) == ["checkpoint.th", "checkpoint.th.previous"]
    assert torch.load(saving.previous(path)) == {"epoch": 1}
