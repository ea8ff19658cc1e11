"""Write every table and plot in docs/results again from the records next to them, without measuring anything.

    python -m tools.results                 # or: make results
    python -m tools.results --folder DIR
"""
from __future__ import annotations

import argparse
import json
import sys
import typing as tp
from pathlib import Path

from magnet_plugin.bench import table as bench_table
from magnet_plugin.bench.claims import page as claims_page
from magnet_plugin.sweeps.report import rewrite_report

from . import check_install, fault_record

RESULTS = Path(__file__).parents[1] / "docs" / "results"


def rebuild(folder: Path) -> list[Path]:
    """Write all pages in a folder of results.

    Returns:
        The pages.
    Raises:
        ValueError: a record is of no known kind.
    """
    pages = [bench_table.write(folder)]
    if claims := claims_page.write(folder):
        pages.append(claims)
    for path in sorted(folder.glob("*.json")):
        record = json.loads(path.read_text())
        if "kind" not in record:                    # Those of `magnet bench` are all in bench.md.
            pages.append(page_of(path, record))
    return pages


def page_of(path: Path, record: dict[str, tp.Any]) -> Path:
    """Write the page of one record.

    Raises:
        ValueError: the record is of no known kind.
    """
    if "grid" in record:
        return rewrite_report(path).files[0]
    if "fault" in record["rows"][0]:
        return fault_record.write_page(path)
    if "installer" in record["rows"][0]:
        target = path.with_suffix(".md")
        target.write_text(check_install.table(record))
        return target
    raise ValueError(f"{path} is a record of no known kind")


def main(arguments: tp.Optional[tp.Sequence[str]] = None) -> int:
    """Write the pages and print their paths."""
    parser = argparse.ArgumentParser(prog="python -m tools.results", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=RESULTS, help="folder of the records (default: docs/results)")
    for path in rebuild(parser.parse_args(arguments).folder):
        print(path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
