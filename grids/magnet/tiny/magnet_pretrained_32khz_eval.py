"""`dora grid magnet.tiny.magnet_pretrained_32khz_eval`: see `magnet/magnet_pretrained_32khz_eval.py`."""
from ..._base import TINY
from ..magnet_pretrained_32khz_eval import grid

explorer = grid(TINY)
