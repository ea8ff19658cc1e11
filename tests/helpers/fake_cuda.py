"""CUDA tensors without data: which operators a function launches on a GPU, found on a machine that has none."""
import collections
import typing as tp

import torch
from torch._subclasses import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

#: Operators that make the host wait for the device, or that give shapes which depend on values.
SYNCHRONIZING = ("_local_scalar_dense", "nonzero", "masked_select", "unique", "item", "is_nonzero")
#: Operators without a kernel, by the start of their names.
NO_KERNEL = ("empty", "new_empty", "prim::", "_unsafe_view")


class Launches(TorchDispatchMode):
    """Records the operators that launch kernels, and those that synchronize.

    Attributes:
        kernels: how often each operator that is neither a view nor an allocation was called.
        synchronizing: names of operators that synchronize or copy between host and device.
    """

    def __init__(self) -> None:
        super().__init__()
        self.kernels: collections.Counter[str] = collections.Counter()
        self.synchronizing: list[str] = []

    def __torch_dispatch__(self, func: tp.Any, types: tp.Any, args: tp.Any = (), kwargs: tp.Any = None) -> tp.Any:
        name = func._schema.name.removeprefix("aten::")
        result = func(*args, **(kwargs or {}))
        inputs = [x for x in torch.utils._pytree.tree_leaves((args, kwargs)) if isinstance(x, torch.Tensor)]
        outputs = [x for x in torch.utils._pytree.tree_leaves(result) if isinstance(x, torch.Tensor)]
        devices = {x.device.type for x in [*inputs, *outputs] if x.dim() or x.device.type == "cuda"}
        by_mask = name.startswith("index") and any(x.dtype == torch.bool for x in inputs[1:])
        if name in SYNCHRONIZING or by_mask or (name in ("_to_copy", "copy_") and len(devices) > 1):
            self.synchronizing.append(name)
        views = any(x.alias_info is not None and not x.alias_info.is_write for x in func._schema.returns)
        if not views and not name.startswith(NO_KERNEL) and "cuda" in devices:
            self.kernels[name] += 1
        return result


def fake_cuda() -> FakeTensorMode:
    """Return a mode in which tensors may be on "cuda" but hold no values."""
    return FakeTensorMode(allow_non_fake_inputs=True)
