"""`dora grid magnet.tiny.audio_magnet_16khz`: see `magnet/audio_magnet_16khz.py`."""
from ..._base import TINY
from ..audio_magnet_16khz import grid

explorer = grid(TINY)
