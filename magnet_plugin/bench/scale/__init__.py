"""`magnet bench scale`: what a training step costs on many GPUs, computed from the configs before a job is queued."""
