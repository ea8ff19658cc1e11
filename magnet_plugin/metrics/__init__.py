"""Metrics that need no download: codec quality, instrument accuracy and Fréchet distance in the codec's latents."""

#: What `metrics.evaluation` and `magnet evaluate` can measure.
METRICS = ("instruments", "frechet", "kernel", "melody")
