"""`dora grid magnet.tiny.ablate_guidance`: see `magnet/ablate_guidance.py`."""
from ..._base import TINY
from ..ablate_guidance import grid

explorer = grid(TINY)
