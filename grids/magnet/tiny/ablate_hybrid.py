"""`dora grid magnet.tiny.ablate_hybrid`: see `magnet/ablate_hybrid.py`."""
from ..._base import TINY
from ..ablate_hybrid import grid

explorer = grid(TINY)
