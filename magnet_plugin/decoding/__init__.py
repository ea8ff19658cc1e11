"""The paper's decoding algorithm (section 3) over a model given as a callable. Nothing here imports a model."""
