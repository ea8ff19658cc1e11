"""Iterative masked decoding (paper, section 3), in pieces that take tensors and callables and import no model."""
from .loop import Given, NonFiniteLogits, decode

__all__ = ["Given", "NonFiniteLogits", "decode"]
