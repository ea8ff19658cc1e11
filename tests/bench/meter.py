"""What operations allocate, read and write, and what autograd stores: measured on real models, to check formulas."""
from __future__ import annotations

import typing as tp
import weakref

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

_PRODUCTS = {"mm", "bmm", "addmm", "baddbmm", "convolution", "lstm"}        # counted in FLOPs


class Meter(TorchDispatchMode):
    """Count, inside a `with` block, the bytes of new tensors (`live`, `peak`) and the bytes read and written by all
    operations that are neither views nor matrix products (`moved`). Works on meta tensors too."""

    def __init__(self) -> None:
        super().__init__()
        self.live = self.peak = self.moved = 0
        self._sizes: dict[int, int] = {}        # by storage; 0 for those made before the block

    def __torch_dispatch__(self, func: tp.Any, types: tp.Any, args: tp.Any = (), kwargs: tp.Any = None) -> tp.Any:
        read = _tensors((args, kwargs))
        for tensor in read:
            self._add(tensor, counts=False)
        out = func(*args, **(kwargs or {}))
        made = _tensors(out)
        for tensor in made:
            self._add(tensor)
        views = {x.untyped_storage()._cdata for x in read} & {x.untyped_storage()._cdata for x in made}
        if (func._schema.is_mutable or (made and not views)) and func._schema.name.split("::")[1] not in _PRODUCTS:
            written = made or _tensors(args[0])                 # foreach operations work in place
            self.moved += sum(x.numel() * x.element_size() for x in [*read, *written])
        return out

    def _add(self, tensor: torch.Tensor, counts: bool = True) -> None:
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key not in self._sizes:
            self._sizes[key] = storage.nbytes() if counts else 0
            self.live += self._sizes[key]
            self.peak = max(self.peak, self.live)
            weakref.finalize(storage, self._free, key)

    def _free(self, key: int) -> None:
        self.live -= self._sizes.pop(key)


class Saved:
    """Count, inside a `with` block, the storages that autograd keeps for the backward pass, except those of `known`."""

    def __init__(self, known: tp.Iterable[torch.Tensor]) -> None:
        self._skip = {x.untyped_storage().data_ptr() for x in known}
        self._sizes: dict[int, int] = {}
        self._hooks = torch.autograd.graph.saved_tensors_hooks(self._pack, lambda x: x)

    def __enter__(self) -> Saved:
        self._hooks.__enter__()
        return self

    def __exit__(self, *error: tp.Any) -> None:
        self._hooks.__exit__(*error)

    @property
    def bytes(self) -> int:
        return sum(self._sizes.values())

    def _pack(self, tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in self._skip:
            self._sizes[storage.data_ptr()] = storage.nbytes()
        return tensor


def _tensors(tree: tp.Any) -> list[torch.Tensor]:
    return [x for x in tree_leaves(tree) if isinstance(x, torch.Tensor)]
