"""A data worker that does nothing; light, for processes of its own."""
import time
import typing as tp

from magnet_plugin.distributed import signals


def sleep(ready: tp.Any) -> None:
    """Sleep for a minute, as a worker does while its process computes."""
    signals.shield_worker()
    ready.set()
    time.sleep(60)
