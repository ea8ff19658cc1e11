"""Metrics that need no download: codec quality, instrument accuracy and Fréchet distance in the codec's latents."""
