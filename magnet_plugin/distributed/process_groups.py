"""Create the process group of a run, with a timeout."""
import datetime
import functools
import os
import typing as tp

import flashy
import torch
from dora.distrib import get_distrib_spec


def check_timeout(timeout: tp.Any) -> float:
    """Validate `distrib.timeout` and return it in seconds.

    Raises:
        ValueError: the value is not a positive, finite number.
    """
    if isinstance(timeout, bool) or not isinstance(timeout, (int, float)) or not 0 < timeout < float("inf"):
        raise ValueError(f"distrib.timeout={timeout} must be a positive number: the seconds that ranks wait for each other. "
                         "Set, for example, distrib.timeout=1800")
    return float(timeout)


def init(timeout: float, force: bool = False) -> None:
    """Create the process group of this run: NCCL with CUDA, otherwise gloo.

    Args:
        timeout: seconds that a rank waits for the others, at the start and in each collective operation.
        force: create a group even for a single rank, which sharded weights need.

    Raises:
        RuntimeError: some ranks did not connect within the timeout.
    """
    world_size = get_distrib_spec().world_size
    if force and world_size == 1:
        os.environ["DORA_FORCE_DISTRIB"] = "1"
        os.environ.setdefault("MASTER_ADDR", "127.0.0.1")
    original = torch.distributed.init_process_group
    torch.distributed.init_process_group = functools.partial(original, timeout=datetime.timedelta(seconds=timeout))
    try:
        flashy.distrib.init(backend="nccl" if torch.cuda.is_available() else "gloo")       # has no timeout argument
    except torch.distributed.DistError as error:
        raise RuntimeError(f"the {world_size} ranks did not connect within distrib.timeout={timeout:g} s. If one of them "
                           "ended before, its log has the cause: see solver.log.RANK in the experiment's folder. Otherwise "
                           "check the network, or set a longer distrib.timeout") from error
    finally:
        torch.distributed.init_process_group = original
