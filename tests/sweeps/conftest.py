"""SLURM's commands as scripts that record their arguments."""
import itertools
import os
import typing as tp
from pathlib import Path

import pytest

FIRST_JOB = itertools.count(1000, 1000)     # submitit remembers finished jobs for the whole process: ids are never reused


class FakeSlurm:
    """`sbatch` numbers its jobs and keeps their scripts; `sacct` reports `states`.

    Args:
        folder: Folder for programs and records.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.first = folder, next(FIRST_JOB)
        self.programs = folder / "bin"
        self.programs.mkdir(parents=True)
        (folder / "next").write_text(str(self.first))
        self.set_states({})
        self.program("srun", "exit 1")
        self.program("squeue", "true")
        self.program("scancel", f'echo "$@" >> {folder}/cancelled')
        self.program("sacct", f"cat {folder}/states")
        self.program("sbatch", f"cd {folder}; job=$(cat next); cp $1 $job.sh; echo $((job + 1)) > next; "
                               "echo Submitted batch job $job")

    def program(self, name: str, command: str) -> None:
        path = self.programs / name
        path.write_text(f"#!/bin/sh\necho {name} >> {self.folder}/called\n{command}\n")
        path.chmod(0o755)

    def set_states(self, states: tp.Mapping[str, str]) -> None:
        """Set job id -> state."""
        lines = ["JobID|State|NodeList", *(f"{job}|{state}|node" for job, state in states.items())]
        (self.folder / "states").write_text("\n".join(lines) + "\n")

    def script(self, number: int) -> list[str]:
        """Lines of the script of the nth submission, from 0."""
        return (self.folder / f"{self.first + number}.sh").read_text().splitlines()

    def submissions(self) -> int:
        return int((self.folder / "next").read_text()) - self.first

    def called(self) -> set[str]:
        """Names of the programs that were run."""
        path = self.folder / "called"
        return set(path.read_text().split()) if path.exists() else set()


@pytest.fixture
def fake_slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeSlurm:
    """A SLURM that accepts jobs and runs none."""
    fake = FakeSlurm(tmp_path / "slurm")
    monkeypatch.setenv("PATH", f"{fake.programs}{os.pathsep}{os.environ['PATH']}")
    return fake


@pytest.fixture
def no_slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A PATH without any program."""
    monkeypatch.setenv("PATH", str(tmp_path / "none"))
