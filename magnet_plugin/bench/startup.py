"""`magnet bench startup`: how long a command takes from its start to its result, each time in a new process."""
from __future__ import annotations

import dataclasses
import subprocess
import sys
import tempfile
import typing as tp

import torch

from .measure import Log, Run, measure_in_turn, ratios

CAPTION = "a fast reel played on the violin"
IMPORT = "import audiocraft"


@dataclasses.dataclass(frozen=True)
class Case:
    """Number of measured calls of each command, after one that fills the disk cache."""
    rounds: int = 3


def cases(device: torch.device, smoke: bool) -> list[Case]:
    """Return what is measured."""
    return [Case(1 if smoke else 3)]


def measure(case: Case, device: torch.device, log: Log) -> dict[str, tp.Any]:
    """Measure `magnet generate` with the bundled model up to the finished WAV, and imports on their own, in turn.

    Returns:
        `case`; `commands`, wall seconds as in `measure_in_turn` without the memory, which is that of other processes;
        `commands_ratios` to `import audiocraft`.
    """
    python = [sys.executable]
    with tempfile.TemporaryDirectory() as folder:
        commands = {
            "magnet generate": [*python, "-m", "magnet_plugin", "generate", CAPTION, "--seed", "0", "--device", str(device),
                                "--out", folder],
            "magnet --help": [*python, "-m", "magnet_plugin", "--help"],
            IMPORT: [*python, "-c", IMPORT], "import torch": [*python, "-c", "import torch"]}
        log(f"  {', '.join(commands)}: {case.rounds} rounds in turn")
        found = measure_in_turn({name: run_command(command) for name, command in commands.items()}, case.rounds,
                                torch.device("cpu"), log)
    for entry in found.values():
        entry.pop("peak_mib", None)
    return {"case": dataclasses.asdict(case), "commands": found, "commands_ratios": ratios(found, IMPORT)}


def run_command(command: tp.Sequence[str]) -> Run:
    """Return a run of a command in a new process, which raises RuntimeError if the command fails."""
    def run() -> None:
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(f"exit status {done.returncode}: {done.stderr[-300:]}")
    return run
