"""A dictionary with a limit."""
import collections
import typing as tp

KINDS = 4       # How many kinds of clips (shape, text length, settings) buffers and graphs are kept for.


class Kept(collections.OrderedDict[tp.Hashable, tp.Any]):
    """Things that were built for some kinds of calls. The least recently used one makes room for a new one.

    Args:
        capacity: how many to keep.
    """

    def __init__(self, capacity: int) -> None:
        super().__init__()
        self.capacity = capacity

    def find(self, key: tp.Hashable, build: tp.Callable[[], tp.Any]) -> tp.Any:
        """Return what is kept under this key, or build it."""
        if key not in self:
            while len(self) >= self.capacity:       # Before it is built: both may not fit the memory.
                self.popitem(last=False)
            self[key] = build()
        self.move_to_end(key)
        return self[key]
