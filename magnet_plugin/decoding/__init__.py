"""Iterative masked decoding (paper, section 3), in pieces that take tensors and callables and import no model."""
from .guidance import Guide
from .loop import Given, NonFiniteLogits, decode
from .weights import NotLean, engine_for

__all__ = ["Given", "Guide", "NonFiniteLogits", "NotLean", "decode", "engine_for"]
