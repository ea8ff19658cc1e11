"""Checkpoints are on the disk before they replace the previous ones."""
import os
from pathlib import Path

import flashy
import pytest
import torch
from audiocraft.utils import checkpoint

import magnet_plugin


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
