"""Files that the plugin writes for other processes to read."""
from pathlib import Path

import pytest

from magnet_plugin.environment import atomic_write


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
