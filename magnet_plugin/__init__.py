"""MAGNeT for AudioCraft (arXiv 2401.04577)."""
__version__ = "0.1.0"
