"""Fully sharded data parallelism (FSDP, arXiv 2304.11277) with torch's `fully_shard`, for `fsdp.use=true`.

AudioCraft's own wrapper builds on torch's first FSDP and on its private functions. Here the model keeps its class: each
layer, then the rest of the model, is sharded in place, and its parameters become DTensors. The conditioners stay whole on
every rank, because solvers call them before the model; their gradients are averaged explicitly. A frozen T5 is not part of
the model's weights.

Everything that is saved, averaged (EMA) or exchanged uses plain tensors with this rank's shards (`ShardedState`).
"""
import hashlib
import inspect
import sys
import typing as tp
from dataclasses import dataclass

import flashy
import torch
from torch import nn

if tp.TYPE_CHECKING:
    from torch.distributed.tensor import DTensor

#: fsdp.sharding_strategy -> whether layers release their gathered weights between the forward and the backward pass.
STRATEGIES = {"shard_grad_op": False, "full_shard": True}
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
State = dict[str, tp.Any]


@dataclass(frozen=True)
class Sharding:
    """The settings of `fsdp` in a config.

    Attributes:
        sharding_strategy: one of `STRATEGIES`.
        param_dtype: dtype of the forward and backward pass.
        reduce_dtype: dtype in which gradients are summed over ranks.
        buffer_dtype: only float32 is supported.
        per_block: gather one layer at a time; otherwise the whole model at once.

    Raises:
        ValueError: a setting is not supported.
    """
    sharding_strategy: str = "shard_grad_op"
    param_dtype: str = "bfloat16"
    reduce_dtype: str = "float32"
    buffer_dtype: str = "float32"
    per_block: bool = True

    def __post_init__(self) -> None:
        if self.sharding_strategy == "no_shard":
            raise ValueError("fsdp.sharding_strategy=no_shard keeps whole weights on every rank, which is what training "
                             "without FSDP does: set fsdp.use=false")
        if self.sharding_strategy not in STRATEGIES:
            raise ValueError(f"fsdp.sharding_strategy={self.sharding_strategy} is not supported; set it to one of "
                             f"{', '.join(STRATEGIES)}")
        for name in ("param_dtype", "reduce_dtype"):
            if getattr(self, name) not in DTYPES:
                raise ValueError(f"fsdp.{name}={getattr(self, name)} is not one of {', '.join(DTYPES)} (FSDP trains without "
                                 f"a gradient scaler); set fsdp.{name}=bfloat16, or float32 on GPUs without bfloat16")
        if self.buffer_dtype != "float32":
            raise ValueError(f"fsdp.buffer_dtype={self.buffer_dtype} is not supported, buffers keep their dtype; set "
                             "fsdp.buffer_dtype=float32")


def shard(model: tp.Any, sharding: Sharding, device: str) -> None:
    """Shard a language model in place over all ranks, with the weights of rank 0.

    Args:
        model: a `MagnetLMModel`, or another model with `condition_provider` and `transformer.layers`.
        sharding: settings.
        device: device of the model.

    Raises:
        ValueError: there is no process group, or torch is too old.
    """
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
    if not torch.distributed.is_initialized():
        raise ValueError("fsdp.use=true needs a process group: train with `dora run`, and load a trained model with "
                         "fsdp.use=false, as //sig/SIG does")
    if "ignored_params" not in inspect.signature(fully_shard).parameters:
        raise ValueError(f"fsdp.use=true needs torch 2.7 or later, this is torch {torch.__version__}; upgrade torch, or set "
                         "fsdp.use=false")
    flashy.distrib.broadcast_model(model)
    provider = model.condition_provider
    mesh = init_device_mesh(torch.device(device).type, (torch.distributed.get_world_size(),))
    policy = MixedPrecisionPolicy(param_dtype=DTYPES[sharding.param_dtype], reduce_dtype=DTYPES[sharding.reduce_dtype])
    if sharding.per_block:
        reshard = STRATEGIES[sharding.sharding_strategy]
        for layer in model.transformer.layers:
            fully_shard(layer, mesh=mesh, mp_policy=policy, reshard_after_forward=reshard)
    fully_shard(model, mesh=mesh, mp_policy=policy, reshard_after_forward=False, ignored_params=set(provider.parameters()))
    # The fused loops of optimizers accept either DTensors or plain tensors, so conditioners get a parameter group.
    provider.__dict__["make_optim_group"] = lambda: {"params": list(provider.parameters())}
    model.__dict__["_fsdp"] = model                 # AudioCraft's mark of a sharded model


def is_sharded(tensor: tp.Any) -> tp.TypeGuard["DTensor"]:
    """Whether a tensor is a DTensor. Importing that class takes seconds, so it is only looked for if it was imported."""
    module = sys.modules.get("torch.distributed.tensor")
    return module is not None and isinstance(tensor, module.DTensor)


def local_part(tensor: torch.Tensor) -> torch.Tensor:
    """Return this rank's part of a tensor, sharing its memory; for a plain tensor, the tensor itself, detached."""
    return (tensor.to_local() if is_sharded(tensor) else tensor).detach()


def sync_gradients(model: nn.Module) -> None:
    """Complete the gradients after a backward pass of a sharded model.

    Parameters without a gradient get zeros, so that AdamW decays the heads of other stages, and the gradients of the
    conditioners are averaged over ranks. `fully_shard` has reduced all others.
    """
    for parameter in model.parameters():
        if parameter.requires_grad and parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
    flashy.distrib.average_tensors(p.grad for p in model.parameters() if p.grad is not None and not is_sharded(p))
    flashy.distrib.average_tensors(model.buffers())


@torch.no_grad()
def clip_grad_norm(model: nn.Module, max_norm: float) -> torch.Tensor:
    """Clip gradients as `torch.nn.utils.clip_grad_norm_` does, where some are sharded and others whole on every rank.

    Returns:
        The norm of all gradients together before clipping; the same on all ranks.
    """
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    device = gradients[0].device
    sharded, whole = torch.zeros((), device=device), torch.zeros((), device=device)
    for gradient in gradients:
        total = sharded if is_sharded(gradient) else whole
        total += local_part(gradient).float().square().sum()
    torch.distributed.all_reduce(sharded)
    norm = (sharded + whole).sqrt()
    factor = (max_norm / (norm + 1e-6)).clamp(max=1.0)
    for gradient in gradients:
        local_part(gradient).mul_(factor)
    return norm


class ShardedState(nn.Module):
    """This rank's shards of a model as plain tensors: a state source for solvers and a weight source for an EMA.

    torch releases gathered weights at the end of a backward pass and before `state_dict`, so the shards are current then.

    Args:
        model: a model after `shard`.
    """
    model: tp.Any

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.__dict__["model"] = model              # not registered as a submodule: its weights are DTensors

    def named_parameters(self, *args: tp.Any, **kwargs: tp.Any) -> tp.Iterator:       # type: ignore[override]
        return ((name, local_part(value)) for name, value in self.model.named_parameters(*args, **kwargs))

    def named_buffers(self, *args: tp.Any, **kwargs: tp.Any) -> tp.Iterator:
        return self.model.named_buffers(*args, **kwargs)

    def named_modules(self, *args: tp.Any, **kwargs: tp.Any) -> tp.Iterator:
        return self.model.named_modules(*args, **kwargs)

    def state_dict(self, *args: tp.Any, **kwargs: tp.Any) -> State:                   # type: ignore[override]
        return {name: local_part(value) for name, value in self.model.state_dict().items()}

    @torch.no_grad()
    def load_state_dict(self, state: tp.Mapping[str, tp.Any], *args: tp.Any, **kwargs: tp.Any) -> None:  # type: ignore[override]
        """Load this rank's shards, or this rank's part of whole weights.

        Raises:
            ValueError: keys or shapes do not match; nothing was loaded.
        """
        own = self.model.state_dict()
        parts = {name: _own_part(state[name], value) for name, value in own.items() if name in state}
        wrong = sorted(own.keys() ^ state.keys()) + [f"{name}: {list(state[name].shape)} instead of {list(own[name].shape)}"
                                                     for name, part in parts.items() if part is None]
        if wrong:
            raise ValueError("the weights do not match the sharded model, and nothing was loaded. Load a checkpoint of a "
                             "model with the same transformer_lm settings. Missing, unexpected or differently shaped: "
                             + ", ".join(wrong))
        for name, part in parts.items():
            local_part(own[name]).copy_(tp.cast(torch.Tensor, part))

    def whole(self, dtype: tp.Optional[torch.dtype] = None) -> State:
        """Gather the weights of all ranks on the CPU of rank 0; other ranks get an empty dict. A collective operation."""
        gathered: State = {}
        for name, value in self.model.state_dict().items():
            full = (value.full_tensor() if is_sharded(value) else value).detach()
            if flashy.distrib.is_rank_zero():
                gathered[name] = full.to("cpu", dtype if full.is_floating_point() else None, copy=True)
        return gathered


def _own_part(value: torch.Tensor, own: torch.Tensor) -> tp.Optional[torch.Tensor]:
    """Return this rank's part of `value`, which may be a shard or a whole tensor; None if its shape matches neither."""
    if value.shape == local_part(own).shape:
        return value
    if value.shape != own.shape or not is_sharded(own):
        return None
    pieces, rank = value.chunk(own.device_mesh.size()), own.device_mesh.get_local_rank()
    return pieces[rank] if rank < len(pieces) else value[:0]


class ShardedOptimizerState:
    """The state of an optimizer with sharded parameters, saved as plain tensors."""

    def __init__(self, optimizer: torch.optim.Optimizer) -> None:
        self.optimizer = optimizer

    def state_dict(self) -> State:
        state = self.optimizer.state_dict()
        local = {index: {name: local_part(value) if isinstance(value, torch.Tensor) else value
                         for name, value in entry.items()} for index, entry in state["state"].items()}
        return {"state": local, "param_groups": state["param_groups"]}

    def load_state_dict(self, state: State) -> None:
        params = [parameter for group in self.optimizer.param_groups for parameter in group["params"]]
        sharded = {index: {name: _with_layout_of(params[index], value) for name, value in entry.items()}
                   for index, entry in state["state"].items()}
        self.optimizer.load_state_dict({"state": sharded, "param_groups": state["param_groups"]})


def _with_layout_of(parameter: torch.Tensor, value: tp.Any) -> tp.Any:
    """Return a shard as a DTensor with the layout of a sharded parameter; scalars and other values as they are."""
    if not is_sharded(parameter) or not isinstance(value, torch.Tensor) or value.dim() == 0:
        return value
    from torch.distributed.tensor import DTensor
    return DTensor.from_local(value.to(parameter.device), parameter.device_mesh, parameter.placements, run_check=False,
                              shape=parameter.shape, stride=parameter.stride())


def model_hash(model: nn.Module) -> str:
    """Return the SHA-1 of the weights, as AudioCraft's `model_hash` does; of sharded weights, only this rank's part."""
    digest = hashlib.sha1()
    for parameter in model.parameters():
        digest.update(local_part(parameter).cpu().contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
