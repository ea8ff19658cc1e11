"""Weights in shards over the ranks, by torch's `fully_shard`: what `fsdp.use=true` does (FSDP, arXiv 2304.11277).

AudioCraft's own wrapper builds on torch's first FSDP and on its private parts. Here the model stays itself: each layer and
then the rest of it is sharded in place, and its parameters become DTensors. The conditioners stay whole on every rank, as
solvers call them before the model; their gradients are averaged by hand. A frozen T5 is no part of the model's weights.

Everything that is saved, averaged (EMA) or swapped goes by plain tensors, those of a rank's own shards (`Shards`).
"""
import hashlib
import typing as tp
from dataclasses import dataclass

import flashy
import torch
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor

#: fsdp.sharding_strategy -> whether layers give their gathered weights up between the forward and the backward pass.
STRATEGIES = {"shard_grad_op": False, "full_shard": True}
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
State = dict[str, tp.Any]


@dataclass(frozen=True)
class Sharding:
    """How to shard.

    Attributes:
        sharding_strategy: one of `STRATEGIES`.
        param_dtype: what the model computes in.
        reduce_dtype: what gradients are summed in.
        buffer_dtype: float32 alone.
        per_block: gather a layer at a time; else the whole model at once.
    Raises:
        ValueError: a setting that cannot work.
    """
    sharding_strategy: str = "shard_grad_op"
    param_dtype: str = "bfloat16"
    reduce_dtype: str = "float32"
    buffer_dtype: str = "float32"
    per_block: bool = True

    def __post_init__(self) -> None:
        if self.sharding_strategy == "no_shard":
            raise ValueError("fsdp.sharding_strategy=no_shard keeps the weights whole on every rank: set fsdp.use=false")
        if self.sharding_strategy not in STRATEGIES:
            raise ValueError(f"fsdp.sharding_strategy={self.sharding_strategy}; there are {', '.join(STRATEGIES)}")
        for name in ("param_dtype", "reduce_dtype"):
            if getattr(self, name) not in DTYPES:
                raise ValueError(f"fsdp.{name}={getattr(self, name)}: without a gradient scaler there are "
                                 f"{', '.join(DTYPES)}; set fsdp.{name}=bfloat16, or float32 on GPUs that lack it")
        if self.buffer_dtype != "float32":
            raise ValueError(f"fsdp.buffer_dtype={self.buffer_dtype}: buffers stay as they are; set "
                             "fsdp.buffer_dtype=float32")


def shard(model: tp.Any, how: Sharding, device: str) -> None:
    """Shard a language model in place, those of the first rank's weights.

    Args:
        model: a `MagnetLMModel`, or a model with `condition_provider` and `transformer.layers`.
        how: settings.
        device: where the model is.
    Raises:
        ValueError: there is no process group.
    """
    if not torch.distributed.is_initialized():
        raise ValueError("fsdp.use=true needs the ranks' process group: train by `dora run`, and load a trained model with "
                         "fsdp.use=false (//sig/SIG does)")
    flashy.distrib.broadcast_model(model)
    provider = model.condition_provider
    mesh = init_device_mesh(torch.device(device).type, (torch.distributed.get_world_size(),))
    policy = MixedPrecisionPolicy(param_dtype=DTYPES[how.param_dtype], reduce_dtype=DTYPES[how.reduce_dtype])
    if how.per_block:
        for layer in model.transformer.layers:
            fully_shard(layer, mesh=mesh, mp_policy=policy, reshard_after_forward=STRATEGIES[how.sharding_strategy])
    fully_shard(model, mesh=mesh, mp_policy=policy, reshard_after_forward=False, ignored_params=set(provider.parameters()))
    # A group of its own in the optimiser, whose loops over many tensors take DTensors or plain ones, not both.
    provider.__dict__["make_optim_group"] = lambda: {"params": list(provider.parameters())}
    model.__dict__["_fsdp"] = model                 # as AudioCraft marks a sharded model


def local(tensor: torch.Tensor) -> torch.Tensor:
    """This rank's part of a tensor, sharing memory with it; a plain tensor is its own."""
    return (tensor.to_local() if isinstance(tensor, DTensor) else tensor).detach()


def _like(part: torch.Tensor, whole: DTensor) -> DTensor:
    part = part.to(whole.device)
    return DTensor.from_local(part, whole.device_mesh, whole.placements, run_check=False, shape=whole.shape,
                              stride=whole.stride())


def sync(model: nn.Module) -> None:
    """After the backward pass: what shards do not see to. Parameters without a gradient get one of zeros, so that AdamW
    decays the heads of other stages; gradients of the conditioners are averaged over ranks."""
    for parameter in model.parameters():
        if parameter.requires_grad and parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
    flashy.distrib.average_tensors(p.grad for p in model.parameters() if p.grad is not None and not isinstance(p, DTensor))
    flashy.distrib.average_tensors(model.buffers())


@torch.no_grad()
def clip_grad_norm(model: nn.Module, max_norm: float) -> torch.Tensor:
    """`torch.nn.utils.clip_grad_norm_` where some gradients are sharded and some are whole on every rank.

    Returns:
        The norm before, of all gradients together; the same on all ranks.
    """
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    device = gradients[0].device
    sharded, whole = torch.zeros((), device=device), torch.zeros((), device=device)
    for gradient in gradients:
        total = sharded if isinstance(gradient, DTensor) else whole
        total += local(gradient).float().square().sum()
    torch.distributed.all_reduce(sharded)
    norm = (sharded + whole).sqrt()
    factor = (max_norm / (norm + 1e-6)).clamp(max=1.0)
    for gradient in gradients:
        local(gradient).mul_(factor)
    return norm


class Shards(nn.Module):
    """A sharded model as this rank's plain tensors: a source of state for solvers, and of weights for an EMA.

    torch gives gathered weights up at the end of a backward pass and before `state_dict`, so that shards are seen there.
    """
    model: tp.Any

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.__dict__["model"] = model              # not a submodule: its weights are DTensors

    def named_parameters(self, *args: tp.Any, **kwargs: tp.Any) -> tp.Iterator:       # type: ignore[override]
        return ((name, local(value)) for name, value in self.model.named_parameters(*args, **kwargs))

    def named_buffers(self, *args: tp.Any, **kwargs: tp.Any) -> tp.Iterator:
        return self.model.named_buffers(*args, **kwargs)

    def named_modules(self, *args: tp.Any, **kwargs: tp.Any) -> tp.Iterator:
        return self.model.named_modules(*args, **kwargs)

    def state_dict(self, *args: tp.Any, **kwargs: tp.Any) -> State:                   # type: ignore[override]
        return {name: local(value) for name, value in self.model.state_dict().items()}

    @torch.no_grad()
    def load_state_dict(self, state: tp.Mapping[str, tp.Any], *args: tp.Any, **kwargs: tp.Any) -> None:  # type: ignore[override]
        """Take over this rank's shards, or weights that are whole, of which it takes its part.

        Raises:
            ValueError: keys or shapes do not fit; nothing was loaded.
        """
        own = self.model.state_dict()
        parts = {name: _part(state[name], value) for name, value in own.items() if name in state}
        wrong = sorted(own.keys() ^ state.keys()) + [f"{name}: {list(state[name].shape)} instead of {list(own[name].shape)}"
                                                     for name, part in parts.items() if part is None]
        if wrong:
            raise ValueError("the weights do not fit the sharded model; nothing was loaded. Missing, unknown or of another "
                             "shape: " + ", ".join(wrong))
        for name, part in parts.items():
            local(own[name]).copy_(tp.cast(torch.Tensor, part))

    def whole(self, dtype: tp.Optional[torch.dtype] = None) -> State:
        """The weights of all ranks together, on the CPU of the first; empty on the others. A collective."""
        found: State = {}
        for name, value in self.model.state_dict().items():
            full = (value.full_tensor() if isinstance(value, DTensor) else value).detach()
            if flashy.distrib.is_rank_zero():
                found[name] = full.to("cpu", dtype if full.is_floating_point() else None, copy=True)
        return found


def _part(given: torch.Tensor, own: torch.Tensor) -> tp.Optional[torch.Tensor]:
    """This rank's part of `given`, a shard or a whole tensor; None if it is neither."""
    mine = local(own)
    if given.shape == mine.shape:
        return given
    if given.shape != own.shape or not isinstance(own, DTensor):
        return None
    pieces, rank = given.chunk(own.device_mesh.size()), own.device_mesh.get_local_rank()
    return pieces[rank] if rank < len(pieces) else given[:0]


class OptimizerShards:
    """An optimiser of sharded parameters, whose state is saved as plain tensors."""

    def __init__(self, optimizer: torch.optim.Optimizer) -> None:
        self.optimizer = optimizer

    def state_dict(self) -> State:
        state = self.optimizer.state_dict()
        held = {index: {name: local(value) if isinstance(value, torch.Tensor) else value for name, value in entry.items()}
                for index, entry in state["state"].items()}
        return {"state": held, "param_groups": state["param_groups"]}

    def load_state_dict(self, state: State) -> None:
        params = [parameter for group in self.optimizer.param_groups for parameter in group["params"]]
        held = {}
        for index, entry in state["state"].items():
            param = params[index]
            held[index] = {name: _like(value, param) if isinstance(param, DTensor) and isinstance(value, torch.Tensor)
                           and value.dim() > 0 else value for name, value in entry.items()}
        self.optimizer.load_state_dict({"state": held, "param_groups": state["param_groups"]})


def fingerprint(model: nn.Module) -> str:
    """SHA-1 of the weights, as AudioCraft's `model_hash`; of this rank's part where they are sharded."""
    digest = hashlib.sha1()
    for parameter in model.parameters():
        digest.update(local(parameter).cpu().contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
