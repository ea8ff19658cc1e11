"""`dora grid magnet.tiny.ablate_span`: see `magnet/ablate_span.py`."""
from ..._base import TINY, training
from ..ablate_span import jobs

explorer = training(TINY, jobs())
