"""Prints the table of faults at the end, and writes it if MAGNET_REPORTS names a folder."""
import typing as tp
from pathlib import Path

import pytest

from tools.fault_record import Row, save, table

from . import REPORTS

_rows: list[Row] = []


@pytest.fixture
def rows() -> list[Row]:
    """The rows of this session's table."""
    return _rows


def pytest_terminal_summary(terminalreporter: tp.Any) -> None:
    if _rows:
        terminalreporter.write_line(table(_rows))
        if REPORTS:
            save(_rows, Path(REPORTS))
