"""Trainings in processes of their own survive what clusters do to them: nothing is lost, doubled or left behind."""
import contextlib
import dataclasses
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import time
import typing as tp
from pathlib import Path

import pytest
import torch

from tools.fault_record import Row

from ..helpers.toy_solver import EPOCHS, UPDATES, same
from . import ROUNDS
from .worker import Plan, start

pytestmark = pytest.mark.faults
#: Rounds of each fault, of 20.
SHARES = {"kill -9 in a training step": 3, "kill -9 while a checkpoint is written": 4, "kill -9 in validation": 2,
          "kill -9 in generation": 2, "full disk": 2, "checkpoint truncated": 2, "one of two ranks killed": 1, "SIGTERM": 1,
          "SIGUSR1": 1, "SIGINT": 1, "the same run started twice": 1}
STEPS = {"train": EPOCHS * UPDATES, "valid": EPOCHS * 9, "generate": 3}
LIMIT = 60              # seconds that a process may take
#: What a run leaves in its folder.
FILES = {"checkpoint.th", "checkpoint.th.previous", "history.json"}


@dataclasses.dataclass
class Undisturbed:
    """A training that nothing happened to: its state, the loss of each step, and its number of file operations."""
    state: dict
    losses: dict[str, str]
    operations: int


def losses_of(notes: Path, rank: int = 0) -> tuple[dict[str, str], int]:
    """Return the loss of each step, and how many training steps were run again.

    Raises:
        AssertionError: a step that was run again had another loss.
    """
    found: dict[str, str] = {}
    again = 0
    for line in (notes / f"losses.{rank}").read_text().splitlines():
        step, _, loss = line.rpartition(" ")
        again += step in found and step.startswith("train")
        assert found.setdefault(step, loss) == loss, f"the loss of {step} is {loss}, and was {found[step]}"
    return found, again


def finish(plan: Plan) -> None:
    """Run the ranks of a plan to their end."""
    ranks = [start(dataclasses.replace(plan, rank=rank))[0] for rank in range(plan.world_size)]
    for rank in ranks:
        rank.join(LIMIT)
        rank.kill()
    assert [rank.exitcode for rank in ranks] == [0] * plan.world_size, plan.output.read_text()[-3000:]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> tp.Callable[[tp.Optional[int], int], Undisturbed]:
    known: dict[tuple, Undisturbed] = {}

    def get(save_updates: tp.Optional[int], world_size: int = 1) -> Undisturbed:
        if (save_updates, world_size) not in known:
            folder = tmp_path_factory.mktemp("undisturbed")
            plan = Plan(folder / "dora", folder / "notes", save_updates, world_size=world_size)
            finish(plan)
            result = torch.load(plan.result, weights_only=False)
            known[save_updates, world_size] = Undisturbed(result["state"], losses_of(plan.notes)[0], result["operations"])
        return known[save_updates, world_size]
    return get


def check(plan: Plan, expected: Undisturbed, also: tp.Collection[str] = ()) -> int:
    """Check what a training has left behind that was disturbed and started again; return the updates trained again."""
    losses, again = losses_of(plan.notes)
    assert losses == expected.losses
    state = torch.load(plan.result, weights_only=False)["state"]
    differ = [(key, state[key], value) for key, value in expected.state.items() if not same(state[key], value)]
    assert state.keys() == expected.state.keys() and not differ, f"the state differs: {differ}"
    xp = next(plan.folder.glob("xps/*"))
    history = json.loads((xp / "history.json").read_text())
    assert len(history) == EPOCHS
    for epoch, wanted in zip(history, expected.state["history"], strict=True):
        assert {stage: {name: value for name, value in metrics.items() if name != "duration"}
                for stage, metrics in epoch.items()} == wanted
    left = {path.name for path in xp.iterdir() if path.is_file()}
    assert left - {*also} == FILES, left
    return again


def announced(process: tp.Any, connection: tp.Any) -> bool:
    """Wait until a process has reached its stop."""
    end = time.monotonic() + LIMIT
    while process.is_alive() and time.monotonic() < end:
        with contextlib.suppress(EOFError):
            if connection.poll(0.05):
                return connection.recv() is not None
    return False


def signalled(plan: Plan, signum: int, delay: float, victim: int = 0) -> list[int]:
    """Run ranks, send a signal to one of them at its stop or shortly after, and return all exit codes."""
    ranks = [start(dataclasses.replace(plan, rank=rank)) for rank in range(plan.world_size)]
    process, connection = ranks[victim]
    assert announced(process, connection), plan.output.read_text()[-3000:]
    time.sleep(delay)
    with contextlib.suppress(ProcessLookupError):
        os.kill(process.pid, signum)
    for process, _ in ranks:
        process.join(LIMIT)
        alive = process.is_alive()
        process.kill()
        assert not alive, "a process hangs: " + plan.output.read_text()[-3000:]
    return [process.exitcode for process, _ in ranks]


def killed(stage: str, plan: Plan, draw: random.Random) -> bool:
    plan = dataclasses.replace(plan, stop=(stage, draw.randint(1, STEPS[stage])))
    return signalled(plan, signal.SIGKILL, draw.uniform(0, 0.01)) == [-signal.SIGKILL]


def killed_while_writing(plan: Plan, draw: random.Random, operations: int) -> bool:
    process, _ = start(dataclasses.replace(plan, killed_at=draw.randint(1, operations), written=draw.random()))
    process.join(LIMIT)
    return process.exitcode == -signal.SIGKILL


def stopped(signum: int, plan: Plan, draw: random.Random) -> bool:
    stage = draw.choice(["train", "train", "valid", "generate"])
    plan = dataclasses.replace(plan, stop=(stage, draw.randint(1, STEPS[stage])))
    codes = signalled(plan, signum, draw.uniform(0, 0.005))
    return codes == [1 if signum == signal.SIGINT else 128 + signum]


def rank_killed(plan: Plan, draw: random.Random) -> bool:
    plan = dataclasses.replace(plan, stop=("train", draw.randint(1, STEPS["train"] - 1)))
    victim = draw.randint(0, 1)
    codes = signalled(plan, signal.SIGKILL, draw.uniform(0, 0.01), victim)
    if codes[victim] == -signal.SIGKILL:
        assert codes[1 - victim] == 1, "the other rank ends with an error"
        (plan.notes / "meeting").unlink(missing_ok=True)
    return codes[victim] == -signal.SIGKILL


def truncated(plan: Plan, draw: random.Random, number: int) -> bool:
    """In the last epoch, after two checkpoints."""
    plan = dataclasses.replace(plan, stop=("train", draw.randint(2 * UPDATES + 1, 3 * UPDATES)))
    if signalled(plan, signal.SIGKILL, 0) != [-signal.SIGKILL]:
        return False
    for path in plan.folder.glob("xps/*/*.th"):
        if path.name == "checkpoint.th" or draw.random() < 0.5:
            content = path.read_bytes()
            path.write_bytes(content[:len(content) * (number % 10) // 10])
    return True


def started_twice(plan: Plan, draw: random.Random) -> bool:
    plan = dataclasses.replace(plan, stop=("train", draw.randint(1, STEPS["train"])), waits=True)
    process, connection = start(plan)
    assert announced(process, connection)
    second = dataclasses.replace(plan, notes=plan.notes / "second", waits=False)
    refused, _ = start(second)
    refused.join(LIMIT)
    words = second.output.read_text()
    assert refused.exitcode == 1 and words.count("\n") == 1, words
    assert f"FATAL: the run in {plan.folder} is in use by process {process.pid} on " in words
    connection.send("go on")
    process.join(LIMIT)
    return process.exitcode == 0


@pytest.fixture(scope="module")
def small_disk(tmp_path_factory: pytest.TempPathFactory) -> tp.Iterator[tp.Optional[Path]]:
    """A disk of one megabyte; None where it cannot be mounted."""
    folder = tmp_path_factory.mktemp("disk")
    try:                # By their paths: the tests' PATH is that of a bare machine.
        subprocess.run(["/bin/mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        yield None
        return
    yield folder
    subprocess.run(["/bin/umount", str(folder)], check=True)


def on_full_disk(plan: Plan, draw: random.Random, disk: tp.Optional[Path]) -> bool:
    """Fill the disk but for a part of what the run needs. Without such a disk, the size of files is limited instead."""
    room = draw.randint(4 if disk else 48, 200) * 1024
    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    if disk is not None:
        (disk / "filler").write_bytes(bytes(shutil.disk_usage(disk).free - room))
    process, _ = start(plan)
    if disk is None:
        resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (room // 8, old[1]))         # Its output is limited, too.
    process.join(LIMIT)
    if process.exitcode == 0:
        return False
    words = plan.output.read_text()
    assert disk is None or "Error" in words and "space" in words, words[-2000:]
    assert not list(plan.folder.glob("xps/*/*.th.tmp")), "what could not be written is removed"
    if disk is not None:
        (disk / "filler").unlink()
    return True


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink()


def happens(fault: str, plan: Plan, draw: random.Random, operations: int, number: int, disk: tp.Optional[Path]) -> bool:
    """Run a training that this happens to; return whether it did, and not only after the end."""
    if fault == "kill -9 while a checkpoint is written":
        return killed_while_writing(plan, draw, operations)
    if fault.startswith("kill -9"):
        return killed({"step": "train", "validation": "valid", "generation": "generate"}[fault.split()[-1]], plan, draw)
    if fault.startswith("SIG"):
        return stopped(getattr(signal, fault), plan, draw)
    if fault == "full disk":
        return on_full_disk(plan, draw, disk)
    if fault == "checkpoint truncated":
        return truncated(plan, draw, number)
    return rank_killed(plan, draw) if plan.world_size == 2 else started_twice(plan, draw)


@pytest.mark.parametrize("fault", SHARES)
def test_a_training_goes_on_as_if_nothing_had_happened(fault: str, undisturbed: tp.Callable, small_disk: tp.Optional[Path],
                                                       tmp_path: Path, rows: list[Row]) -> None:
    row, begin = Row(fault), time.monotonic()
    problems: list[str] = []
    number = 0
    while row.tries < max(1, SHARES[fault] * ROUNDS // 20):
        draw = random.Random(f"{fault} {number}")
        assert number < 3 * ROUNDS + 20, "the fault does not happen"
        world_size = 2 if "ranks" in fault else 1
        every = draw.choice([None, 2, 3])
        expected = undisturbed(every, world_size)
        root = tmp_path / str(number)
        dora = small_disk / "dora" if fault == "full disk" and small_disk else root / "dora"
        plan = Plan(dora, root / "notes", every, world_size=world_size)
        number += 1
        try:
            if happens(fault, plan, draw, expected.operations, row.tries, small_disk):
                row.tries += 1
                if fault != "the same run started twice":
                    finish(plan)
                again = check(plan, expected, {"checkpoint.th.unreadable"} if "truncated" in fault else ())
                limit = 0 if fault in ("SIGTERM", "SIGUSR1", "the same run started twice") else \
                    2 * UPDATES if "truncated" in fault else UPDATES if every is None else 2 * every
                assert again <= limit, f"{again} updates were trained again, with save_updates={every}"
                row.survived, row.repeated = row.survived + 1, row.repeated + again
        except AssertionError as error:
            problems.append(f"round {number - 1}: {error}")
        finally:
            shutil.rmtree(root, ignore_errors=True)
            if small_disk:
                for path in small_disk.iterdir():
                    _remove(path)
    row.seconds = round(time.monotonic() - begin, 1)
    rows.append(row)
    assert not problems, f"{len(problems)} of {row.tries}: " + "\n".join(problems[:3])
