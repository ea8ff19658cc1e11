"""Data sets: manifests of your own audio, checks before training, reading of clips, and the built-in folk set.

Importing this package and its modules loads neither AudioCraft nor music21; only `clips` and `token_cache` import torch.
"""
