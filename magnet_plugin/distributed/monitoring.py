"""The heartbeat of this process, which the training reports its status to."""
import contextlib
import typing as tp
from pathlib import Path

import flashy
import torch

from .heartbeat import Heartbeat

_heartbeat: tp.Optional[Heartbeat] = None


@contextlib.contextmanager
def monitored(timeout: float, folder: Path, log_name: str) -> tp.Iterator[None]:
    """Run the heartbeat of this rank within the context. With a single process this does nothing.

    Args:
        timeout: seconds of silence after which a rank counts as lost.
        folder: folder of the experiment.
        log_name: name of a rank's log in `folder`, with a `{rank}` placeholder.
    """
    global _heartbeat
    if not flashy.distrib.is_distributed():
        yield
        return

    def log_of(rank: int) -> str:
        output = folder / f"worker_{rank}.log"            # written by `dora run -d`
        return f"{folder / log_name.format(rank=rank)}" + (f" (and {output})" if output.exists() else "")
    heartbeat = _heartbeat = Heartbeat(flashy.distrib.rank(), flashy.distrib.world_size(), timeout, log_of)
    heartbeat.start(_broadcast)
    try:
        yield
    except BaseException as error:
        if not (isinstance(error, SystemExit) and (heartbeat.closed or error.code in (None, 0))):
            heartbeat.fail(error)
        raise
    finally:
        announce_exit()
        _heartbeat = None


def _broadcast(value: tp.Any) -> tp.Any:
    values = [value]
    torch.distributed.broadcast_object_list(values)
    return values[0]


def set_status(status: str) -> None:
    """Set what this rank is doing, for the messages of other ranks. Without a heartbeat this does nothing."""
    if _heartbeat is not None:
        _heartbeat.set_status(status)


def announce_exit() -> None:
    """Announce that this rank is about to end normally. Without a heartbeat this does nothing."""
    if _heartbeat is not None:
        _heartbeat.close()
