"""The random generators of this process, kept and put back; items of a data set that draw alike anywhere."""
import functools
import random
import typing as tp

import numpy as np
import torch

from .reduction import mix

Randomness = dict[str, tp.Any]


def randomness(model: torch.nn.Module) -> Randomness:
    """State of Python's, NumPy's and torch's generators, and of those that `model` has of its own (AudioCraft's condition
    dropout does), as plain values and tensors."""
    name, keys, *rest = np.random.get_state()
    return {"python": random.getstate(), "numpy": [name, torch.from_numpy(np.asarray(keys, dtype=np.int64)), *rest],
            "torch": torch.get_rng_state(), "cuda": torch.cuda.get_rng_state() if torch.cuda.is_available() else None,
            "model": {name: generator.get_state() for name, generator in _generators(model)}}


def _generators(model: torch.nn.Module) -> tp.Iterator[tuple[str, torch.Generator]]:
    for path, module in model.named_modules():
        for name, value in vars(module).items():
            if isinstance(value, torch.Generator):
                yield f"{path}.{name}", value


def put_back(state: tp.Optional[Randomness], model: torch.nn.Module) -> None:
    """Put back what `randomness` gave of the same model. What was kept with a GPU loses that part without one."""
    assert state is not None
    for name, generator in _generators(model):
        generator.set_state(state["model"][name])
    random.setstate(state["python"])
    name, keys, *rest = state["numpy"]
    np.random.set_state((name, keys.numpy().astype(np.uint32), *rest))
    torch.set_rng_state(state["torch"])
    if state["cuda"] is not None and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"])


def seed_items(dataset: tp.Any, seed: int) -> None:
    """From now on, what AudioCraft's data set draws for an item depends on `seed`, its epoch and the item's index alone.

    In a data worker: which worker gets an item, and what came before, changes when an epoch is resumed.
    """
    while isinstance(dataset, torch.utils.data.Subset):
        dataset = dataset.dataset
    dataset.__class__ = _seeded(type(dataset), seed)     # type: ignore[arg-type]


@functools.lru_cache
def _seeded(klass: type, seed: int) -> type:
    class Seeded(klass):                         # type: ignore[misc,valid-type]
        def __getitem__(self, index: int) -> tp.Any:
            number = mix(seed, getattr(self, "current_epoch", None) or 0, index)
            random.seed(number)
            np.random.seed(number % 2 ** 32)
            torch.manual_seed(number)
            return super().__getitem__(index)
    return Seeded
