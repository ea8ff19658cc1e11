"""`dora grid magnet.tiny.ablate_span`: see `magnet/ablate_span.py`."""
from ..._base import TINY
from ..ablate_span import grid

explorer = grid(TINY)
