"""A real SLURM on one host, and the plugin's jobs in it."""
