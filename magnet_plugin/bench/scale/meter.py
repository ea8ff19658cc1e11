"""What operations allocate, read and write, by watching them: for models whose costs have no formula, and to check one."""
from __future__ import annotations

import typing as tp
import weakref

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

# Matrix products: their cost is counted in FLOPs.
_PRODUCTS = {"mm", "bmm", "addmm", "baddbmm", "convolution", "lstm"}


class Meter(TorchDispatchMode):
    """Inside of a `with` block: bytes held by tensors made in it, their peak, bytes moved and kernels started.

    Attributes:
        live, peak: bytes of storages that were made in the block and still exist; the most of them at a time.
        moved: bytes read and written by what is neither a view nor a matrix product.
        kernels: operations that are no views.
    """

    def __init__(self) -> None:
        super().__init__()
        self.live = self.peak = self.moved = self.kernels = 0
        self._known: dict[int, int] = {}        # bytes that count, by storage

    def __torch_dispatch__(self, func: tp.Any, types: tp.Any, args: tp.Any = (), kwargs: tp.Any = None) -> tp.Any:
        read = [x for x in tree_leaves((args, kwargs)) if isinstance(x, torch.Tensor)]
        for tensor in read:                                     # what was there before the block does not count
            self._hold(tensor.untyped_storage(), counts=False)
        out = func(*args, **(kwargs or {}))
        made = [x for x in tree_leaves(out) if isinstance(x, torch.Tensor)]
        for tensor in made:
            self._hold(tensor.untyped_storage())
        writes = func._schema.is_mutable
        shared = {x.untyped_storage()._cdata for x in read} & {x.untyped_storage()._cdata for x in made}
        if writes or (made and not shared):
            self.kernels += 1
            if func._schema.name.split("::")[1] not in _PRODUCTS:
                written = made or [x for x in tree_leaves(args[0]) if isinstance(x, torch.Tensor)]      # foreach, in place
                self.moved += sum(x.numel() * x.element_size() for x in [*read, *written])
        return out

    def _hold(self, storage: torch.UntypedStorage, counts: bool = True) -> None:
        key = storage._cdata
        if key not in self._known:
            self._known[key] = storage.nbytes() if counts else 0
            self.live += self._known[key]
            self.peak = max(self.peak, self.live)
            weakref.finalize(storage, self._drop, key)

    def _drop(self, key: int) -> None:
        self.live -= self._known.pop(key)


class Saved:
    """Inside of a `with` block: the storages that autograd keeps for the backward pass, each once.

    Args:
        known: tensors that are there anyway, as a model's parameters are.
    """

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
