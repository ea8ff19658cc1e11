"""The fast forward pass for decoding: prepared weights, linear layers and CUDA graphs."""
