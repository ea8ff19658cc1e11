"""Seed, capture and restore the state of all random generators of this process."""
import random
import typing as tp

import numpy as np
import torch

RandomState = dict[str, tp.Any]


def seed_random_state(own: int, shared: int, model: torch.nn.Module) -> None:
    """Seed the random generators of Python, NumPy and torch with `own`, and those that `model` holds with `shared`.

    Args:
        own: seed of this rank, at least 0.
        shared: seed of all ranks.
        model: see `capture_random_state`.
    """
    random.seed(own)
    np.random.seed(own % 2 ** 32)
    torch.manual_seed(own)
    for _, generator in _generators(model):
        generator.manual_seed(shared)


def capture_random_state(model: torch.nn.Module) -> RandomState:
    """Return the state of the random generators of Python, NumPy, torch and `model`.

    Args:
        model: a module whose submodules may hold generators of their own, as AudioCraft's condition dropout does.

    Returns:
        Plain values and tensors that `torch.load(weights_only=True)` accepts.
    """
    name, keys, *rest = np.random.get_state()
    return {"python": random.getstate(), "numpy": [name, torch.from_numpy(np.asarray(keys, dtype=np.int64)), *rest],
            "torch": torch.get_rng_state(), "cuda": torch.cuda.get_rng_state() if torch.cuda.is_available() else None,
            "model": {name: generator.get_state() for name, generator in _generators(model)}}


def restore_random_state(state: RandomState, model: torch.nn.Module) -> None:
    """Restore what `capture_random_state` returned for the same model. CUDA's state is skipped on machines without CUDA."""
    for name, generator in _generators(model):
        generator.set_state(state["model"][name])
    random.setstate(state["python"])
    name, keys, *rest = state["numpy"]
    np.random.set_state((name, keys.numpy().astype(np.uint32), *rest))
    torch.set_rng_state(state["torch"])
    if state["cuda"] is not None and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"])


def _generators(model: torch.nn.Module) -> tp.Iterator[tuple[str, torch.Generator]]:
    for path, module in model.named_modules():
        for name, value in vars(module).items():
            if isinstance(value, torch.Generator):
                yield f"{path}.{name}", value
