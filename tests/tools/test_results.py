"""Every page in docs/results can be written again from its record."""
import shutil
from pathlib import Path

import pytest

from tools import results

UNRECORDED = {"magnet.tiny.ablate_span.md"}     # Written before reports of grids had records.


def test_the_committed_pages_are_what_their_records_give(tmp_path: Path) -> None:
    """Pictures are not compared: they depend on the version of matplotlib."""
    folder = tmp_path / "results"
    shutil.copytree(results.RESULTS, folder)
    for path in folder.glob("*.md"):
        path.unlink()
    pages = results.rebuild(folder)
    assert {path.name for path in pages} == {path.name for path in folder.glob("*.md")}
    assert {path.name for path in pages} == {path.name for path in results.RESULTS.glob("*.md")} - UNRECORDED
    for path in pages:
        assert path.read_text() == (results.RESULTS / path.name).read_text(), path.name


def test_an_unknown_record_is_refused(tmp_path: Path) -> None:
    (tmp_path / "odd.json").write_text('{"rows": [{"weather": "fine"}]}')
    with pytest.raises(ValueError, match="odd.json is a record of no known kind"):
        results.rebuild(tmp_path)
