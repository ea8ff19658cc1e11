"""Training: AudioCraft solvers for MAGNeT and Hybrid-MAGNeT."""
