"""`dora grid magnet.tiny.magnet_32khz`: see `magnet/magnet_32khz.py`."""
from ..._base import TINY
from ..magnet_32khz import grid

explorer = grid(TINY)
