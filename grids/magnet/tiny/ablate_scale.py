"""`dora grid magnet.tiny.ablate_scale`: see `magnet/ablate_scale.py`."""
from ..._base import TINY
from ..ablate_scale import grid

explorer = grid(TINY)
