"""A data worker that only sleeps, in a module that imports little."""
import time
import typing as tp

from magnet_plugin.distributed import signals


def sleep(ready: tp.Any) -> None:
    """Sleep for a minute, as a worker does while its training process computes."""
    signals.protect_worker()
    ready.set()
    time.sleep(60)
