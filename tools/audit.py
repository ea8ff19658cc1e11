"""Look up every package of a lock file in PyPI's list of known vulnerabilities, by pip-audit.

    python -m tools.audit requirements/lock.txt

pip-audit reports success also if it could look up nothing; this command fails then.
"""
from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
import typing as tp
from pathlib import Path

from packaging.requirements import Requirement


def pins(lock: str) -> list[str]:
    """Return the pins of a lock file, `NAME==VERSION`, that apply to this Python."""
    found = [Requirement(line.rstrip(" \\")) for line in lock.splitlines() if re.match(r"[A-Za-z0-9]", line)]
    return [f"{pin.name}{pin.specifier}" for pin in found if pin.marker is None or pin.marker.evaluate()]


def findings(report: dict[str, tp.Any]) -> tuple[list[str], list[str]]:
    """Return pip-audit's vulnerabilities, a line each, and the packages that it could not look up."""
    bad = [f"{one['name']} {one['version']}: {found['id']}, fixed in {', '.join(found['fix_versions']) or 'no version'}"
           for one in report["dependencies"] for found in one.get("vulns", [])]
    return bad, [one["name"] for one in report["dependencies"] if "skip_reason" in one]


def main(arguments: tp.Sequence[str]) -> int:
    """Run the command line; returns 0 if every package was looked up and none is vulnerable."""
    with tempfile.TemporaryDirectory() as folder:
        requirements, report = Path(folder) / "requirements.txt", Path(folder) / "report.json"
        requirements.write_text("\n".join(pins(Path(arguments[0]).read_text())) + "\n")
        done = subprocess.run([str(Path(sys.executable).with_name("uv")), "tool", "run", "pip-audit", "--requirement",
                               str(requirements), "--no-deps", "--disable-pip", "--format", "json", "--output", str(report),
                               "--progress-spinner", "off"], text=True, capture_output=True)
        if not report.exists():
            print(f"error: pip-audit wrote no report: {done.stderr.strip()}", file=sys.stderr)
            return 1
        result = json.loads(report.read_text())
    bad, unknown = findings(result)
    print("\n".join(bad) or "no known vulnerabilities")
    total = len(result["dependencies"])
    print(f"{total - len(unknown)} of {total} packages were looked up")
    if unknown:
        print(f"error: {', '.join(unknown[:5])}{' and others' if len(unknown) > 5 else ''} could not be looked up; run this "
              "where https://pypi.org/pypi/NAME/VERSION/json can be reached", file=sys.stderr)
    return int(bool(bad or unknown))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
