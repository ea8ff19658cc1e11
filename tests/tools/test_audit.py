"""The audit reads a lock file's pins, and does not take a package that nobody looked up for a safe one."""
from pathlib import Path

from tools import audit

ROOT = Path(__file__).parents[2]


def test_pins_of_other_pythons_are_left_out() -> None:
    lock = "a==1.0 \\\n    --hash=sha256:00\nb==2 ; python_full_version < \'3\' \\\n    --hash=sha256:00\n# comment\n"
    assert audit.pins(lock) == ["a==1.0"]


def test_the_lock_file_has_one_pin_per_package() -> None:
    names = [pin.partition("==")[0] for pin in audit.pins((ROOT / "requirements" / "lock.txt").read_text())]
    assert len(names) == len(set(names)) > 100 and {"torch", "audiocraft", "tinysoundfont"} <= {*names}


def test_vulnerable_and_unknown_packages_are_told_apart() -> None:
    report = {"dependencies": [
        {"name": "safe", "version": "1", "vulns": []}, {"name": "unknown", "skip_reason": "not found"},
        {"name": "bad", "version": "2", "vulns": [{"id": "PYSEC-1", "fix_versions": ["3"]}]}]}
    assert audit.findings(report) == (["bad 2: PYSEC-1, fixed in 3"], ["unknown"])
