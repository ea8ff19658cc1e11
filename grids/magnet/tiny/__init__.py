"""The same ablations at a scale that two CPU cores finish in a minute per job."""
