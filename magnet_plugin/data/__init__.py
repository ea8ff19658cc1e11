"""Data: manifests of a user's own audio, checks before training, and the folk set made on the spot.

Importing this package (and each of its modules) loads neither torch, AudioCraft nor music21.
"""
