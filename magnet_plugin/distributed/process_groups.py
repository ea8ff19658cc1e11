"""The ranks of a run: how they find each other, how long they wait, who is told when one is lost."""
import contextlib
import datetime
import functools
import os
import typing as tp
from pathlib import Path

import flashy
import torch
from dora.distrib import get_distrib_spec

from .heartbeat import Watch

_watch: tp.Optional[Watch] = None


def check_timeout(timeout: tp.Any) -> float:
    """`distrib.timeout` in seconds.

    Raises:
        ValueError: it is no positive number.
    """
    if isinstance(timeout, bool) or not isinstance(timeout, (int, float)) or not 0 < timeout < float("inf"):
        raise ValueError(f"distrib.timeout={timeout} is how many seconds ranks wait for each other; give a number above 0, "
                         "such as 1800")
    return float(timeout)


def init(timeout: float, alone: bool = False) -> None:
    """Dora's `init` with a timeout: the ranks of this run form a group, NCCL's on GPUs, else gloo's.

    Args:
        timeout: seconds after which waiting for the others, at the start or in a collective, is an error.
        alone: form a group of one where there is but one rank; sharded weights need it.
    Raises:
        RuntimeError: not all ranks have come in time.
    """
    world = get_distrib_spec().world_size
    if alone and world == 1:
        os.environ["DORA_FORCE_DISTRIB"] = "1"
        os.environ.setdefault("MASTER_ADDR", "127.0.0.1")
    form = torch.distributed.init_process_group
    torch.distributed.init_process_group = functools.partial(form, timeout=datetime.timedelta(seconds=timeout))
    try:
        flashy.distrib.init(backend="nccl" if torch.cuda.is_available() else "gloo")       # it takes no timeout itself
    except torch.distributed.DistError as error:
        raise RuntimeError(f"the {world} ranks did not find each other within distrib.timeout={timeout:g} s; one that ended "
                           "before has the cause in its log, solver.log.RANK in the experiment's folder") from error
    finally:
        torch.distributed.init_process_group = form


@contextlib.contextmanager
def watched(timeout: float, folder: Path, log_name: str) -> tp.Iterator[None]:
    """While entered, ranks watch each other (see watch.py); nothing to do for a single one.

    Args:
        timeout: seconds of silence after which a rank counts as lost.
        folder: of the experiment.
        log_name: of a rank's log in it, with `{rank}`.
    """
    global _watch
    if not flashy.distrib.is_distributed():
        yield
        return

    def log_of(rank: int) -> str:
        printed = folder / f"worker_{rank}.log"            # of `dora run -d`
        return f"{folder / log_name.format(rank=rank)}" + (f" (and {printed})" if printed.exists() else "")
    watch = _watch = Watch(flashy.distrib.rank(), flashy.distrib.world_size(), timeout, log_of)
    watch.start(_share)
    try:
        yield
    except BaseException as error:
        if not (isinstance(error, SystemExit) and (watch._closed or error.code in (None, 0))):
            watch.fail(error)
        raise
    finally:
        farewell()
        _watch = None


def _share(value: tp.Any) -> tp.Any:
    held = [value]
    torch.distributed.broadcast_object_list(held)
    return held[0]


def note(where: str) -> None:
    """Say where this rank is, for the others' messages."""
    if _watch is not None:
        _watch.note(where)


def farewell() -> None:
    """This rank is about to end as it should; it is not missed from now on."""
    if _watch is not None:
        _watch.close()
