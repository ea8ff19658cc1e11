"""`magnet bench scale`: what a training step costs on many GPUs, computed from the config before a job is queued."""
