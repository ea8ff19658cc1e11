"""`dora grid magnet.tiny.ablate_context`: see `magnet/ablate_context.py`."""
from ..._base import TINY
from ..ablate_context import grid

explorer = grid(TINY)
