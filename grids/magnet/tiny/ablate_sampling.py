"""`dora grid magnet.tiny.ablate_sampling`: see `magnet/ablate_sampling.py`."""
from ..._base import TINY
from ..ablate_sampling import grid

explorer = grid(TINY)
