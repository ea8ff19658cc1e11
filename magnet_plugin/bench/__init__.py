"""`magnet bench`: compare the plugin with its baselines, measure its settings, estimate trainings on many GPUs."""
