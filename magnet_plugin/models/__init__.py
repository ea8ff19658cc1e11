"""Models: MAGNeT and Hybrid-MAGNeT, rescorers, prompt models, and how they are built, loaded and saved."""
