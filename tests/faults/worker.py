"""A training in a process of its own, which something goes wrong in."""
import contextlib
import dataclasses
import io
import os
import signal
import sys
import tempfile
import typing as tp
from pathlib import Path

import torch

from magnet_plugin.distributed.monitoring import monitored
from magnet_plugin.sweeps.holding import holding

from ..conftest import compose
from ..helpers import forked
from ..helpers.toy_solver import Toy, everything, solve

forked.CONTEXT.set_forkserver_preload(["tests.helpers.rank_group", "magnet_plugin.train", __name__])
compose("solver=magnet/debug")              # Once in the server of the processes, which then have it.


@dataclasses.dataclass(frozen=True)
class Plan:
    """What a process does.

    Attributes:
        folder: Dora's folder of the run; it may lie on a small disk.
        notes: folder for the process's output, the losses of its steps and its result.
        save_updates: see `checkpoint.save_updates`.
        stop: (stage, n): announce the n-th step in this stage, counted over the whole run, over the connection.
        waits: whether the process waits for an answer then.
        killed_at: end at the n-th operation on a file of the run, as if killed; see `FileOperations`.
        written: share of a checkpoint that is written if it is ended within one.
        rank, world_size: rank, and number of ranks.
    """
    folder: Path
    notes: Path
    save_updates: tp.Optional[int] = None
    stop: tp.Optional[tuple[str, int]] = None
    waits: bool = False
    killed_at: tp.Optional[int] = None
    written: float = 0.5
    rank: int = 0
    world_size: int = 1

    @property
    def result(self) -> Path:
        return self.notes / f"result.{self.rank}"

    @property
    def output(self) -> Path:
        return self.notes / f"output.{self.rank}"


class FileOperations:
    """Counts the operations that change files of the run, and ends the process at one of them by SIGKILL."""

    def __init__(self, plan: Plan) -> None:
        self.plan, self.count = plan, 0

    def before(self) -> bool:
        """Count an operation; return whether the process has to end within it."""
        self.count += 1
        return self.count == self.plan.killed_at

    def patched(self, function: tp.Callable) -> tp.Callable:
        def call(*args: tp.Any, **kwargs: tp.Any) -> tp.Any:
            if self.before():
                os.kill(os.getpid(), signal.SIGKILL)
            return function(*args, **kwargs)
        return call

    def save(self, real: tp.Callable) -> tp.Callable:
        def save(state: tp.Any, path: tp.Any, **settings: tp.Any) -> None:
            if not isinstance(path, Path) or not self.before():         # Ranks exchange objects through it, too.
                real(state, path, **settings)
                return
            whole = io.BytesIO()
            real(state, whole)
            Path(path).write_bytes(whole.getvalue()[:int(len(whole.getvalue()) * self.plan.written)])
            os.kill(os.getpid(), signal.SIGKILL)
        return save

    def install(self) -> None:
        torch.save = self.save(torch.save)
        for name in ("fsync", "rename"):
            setattr(os, name, self.patched(getattr(os, name)))
        for name in ("replace", "hardlink_to", "unlink"):
            setattr(Path, name, self.patched(getattr(Path, name)))


def start(plan: Plan) -> tuple[tp.Any, tp.Any]:
    """Start a process; return it and the connection to it."""
    ours, theirs = forked.CONTEXT.Pipe()
    process = forked.CONTEXT.Process(target=work, args=(plan, theirs))
    process.start()
    theirs.close()
    return process, ours


def work(plan: Plan, connection: tp.Any) -> None:
    """Train as `magnet_plugin.train.main` does: hold the run, watch the other ranks, and train."""
    signal.signal(signal.SIGINT, signal.default_int_handler)        # A shell's background jobs inherit that it is ignored.
    plan.notes.mkdir(parents=True, exist_ok=True)
    output = os.open(plan.output, os.O_CREAT | os.O_WRONLY | os.O_APPEND)
    os.dup2(output, 1)
    os.dup2(output, 2)
    if plan.world_size > 1:
        os.environ.update(RANK=str(plan.rank), WORLD_SIZE=str(plan.world_size), MASTER_ADDR="127.0.0.1")
        torch.distributed.init_process_group("gloo", f"file://{plan.notes}/meeting", rank=plan.rank,
                                             world_size=plan.world_size)
    files = FileOperations(plan)
    try:
        with contextlib.ExitStack() as stack:
            if plan.rank == 0:
                plan.folder.mkdir(parents=True, exist_ok=True)
                stack.enter_context(holding(plan.folder, wait=0))
            stack.enter_context(monitored(20, plan.notes, "output.{rank}"))
            files.install()
            solver = train(plan, connection)
    except ValueError as error:
        print(f"FATAL: {error}")
        sys.exit(1)
    with tempfile.TemporaryFile() as whole:             # Without counting it.
        torch.save({"state": everything(solver), "operations": files.count}, whole)
        whole.seek(0)
        plan.result.write_bytes(whole.read())


def train(plan: Plan, connection: tp.Any) -> Toy:
    losses = os.open(plan.notes / f"losses.{plan.rank}", os.O_CREAT | os.O_WRONLY | os.O_APPEND)
    reached: dict[str, int] = {}

    def seen(stage: str, epoch: int, step: int, loss: float) -> None:
        os.write(losses, f"{stage} {epoch} {step} {loss.hex()}\n".encode())

    def at(stage: str, step: int) -> None:
        reached[stage] = reached.get(stage, 0) + 1
        if plan.stop == (stage, reached[stage]):
            connection.send(stage)
            if plan.waits:
                connection.recv()
    return solve(plan.folder, 0, at, seen, save_updates=plan.save_updates)
