"""`dora grid magnet.tiny.ablate_steps`: see `magnet/ablate_steps.py`."""
from ..._base import TINY
from ..ablate_steps import grid

explorer = grid(TINY)
