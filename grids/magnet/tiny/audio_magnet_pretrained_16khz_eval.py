"""`dora grid magnet.tiny.audio_magnet_pretrained_16khz_eval`: see `magnet/audio_magnet_pretrained_16khz_eval.py`."""
from ..._base import TINY
from ..audio_magnet_pretrained_16khz_eval import grid

explorer = grid(TINY)
