"""The paper's building blocks: tensors in, tensors out. Nothing here imports AudioCraft."""
