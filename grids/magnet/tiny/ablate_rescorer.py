"""`dora grid magnet.tiny.ablate_rescorer`: see `magnet/ablate_rescorer.py`."""
from ..._base import TINY
from ..ablate_rescorer import grid

explorer = grid(TINY)
