"""Sharded models in a single process: what is sharded, in which dtype, and which settings are refused."""
import typing as tp
from pathlib import Path

import pytest
import torch
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor

from magnet_plugin.distributed import fsdp
from magnet_plugin.distributed.fsdp import Sharding
from magnet_plugin.models import builders
from magnet_plugin.solvers.magnet import MagnetSolver

from ..conftest import compose
from ..helpers.rank_group import make_solver
from ..helpers.small_models import HybridMagnetLMModel, MagnetLMModel, build, conditions


@pytest.fixture
def group(tmp_path: Path) -> tp.Iterator[None]:
    """A process group that consists of this process."""
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/meeting", rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


@pytest.mark.parametrize("overrides, words", [
    (["autocast=true"], "set autocast=false"), (["dtype=float16"], "set dtype=float32"),
    (["optim.optimizer=dadam"], "optim.optimizer=adamw"), (["optim.compile=inductor"], "optim.compile=null"),
    (["fsdp.param_dtype=float16"], "set fsdp.param_dtype=bfloat16"),
    (["fsdp.reduce_dtype=float16"], "set fsdp.reduce_dtype"), (["fsdp.buffer_dtype=bfloat16"], "fsdp.buffer_dtype=float32"),
    (["fsdp.sharding_strategy=no_shard"], "set fsdp.use=false"),
    (["fsdp.sharding_strategy=hybrid"], "shard_grad_op, full_shard")])
def test_unsupported_settings_are_refused_before_anything_is_built(overrides: list[str], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        MagnetSolver(compose("solver=magnet/debug", "fsdp.use=true", *overrides))
    assert builders.get_sharding(compose("solver=magnet/debug", *overrides)) is None, "allowed without FSDP"


def test_sharding_without_a_process_group_is_refused() -> None:
    with pytest.raises(ValueError, match="process group"):
        fsdp.shard(build(MagnetLMModel), Sharding(), "cpu")


@pytest.mark.parametrize("klass", (MagnetLMModel, HybridMagnetLMModel))
@pytest.mark.parametrize("per_block", (True, False))
def test_everything_but_the_conditioners_is_sharded(group: None, klass: type, per_block: bool) -> None:
    model = build(klass)
    description = model.condition_provider.conditioners["description"]
    description.__dict__["t5"] = frozen = torch.nn.Linear(3, 3)     # not a submodule, as in AudioCraft
    keys, shapes = list(model.state_dict()), [list(value.shape) for value in model.state_dict().values()]
    fsdp.shard(model, Sharding(per_block=per_block), "cpu")
    assert [name for name, module in model.named_modules() if isinstance(module, FSDPModule)] == \
        (["", "transformer.layers.0", "transformer.layers.1"] if per_block else [""])
    whole = {name for name, value in model.named_parameters() if not isinstance(value, DTensor)}
    assert whole == {name for name in keys if name.startswith("condition_provider.")} != set()
    assert not any(isinstance(value, DTensor) for value in frozen.parameters())
    assert list(model.state_dict()) == keys and [list(value.shape) for value in model.state_dict().values()] == shapes
    optimizer = torch.optim.AdamW(groups(model))
    assert all(len({isinstance(value, DTensor) for value in each["params"]}) == 1 for each in optimizer.param_groups)
    assert sum(len(each["params"]) for each in optimizer.param_groups) == len(list(model.parameters()))


def groups(model: torch.nn.Module) -> list:
    from audiocraft.solvers import builders as upstream
    return upstream.get_optim_parameter_groups(model)


def test_layers_compute_in_param_dtype_and_weights_stay_float32(group: None) -> None:
    model = build(MagnetLMModel).train()
    seen: list[torch.dtype] = []
    fsdp.shard(model, Sharding(param_dtype="bfloat16"), "cpu")
    model.transformer.layers[0].register_forward_pre_hook(lambda module, args: seen.append(args[0].dtype))
    model.linears[1].register_forward_pre_hook(lambda module, args: seen.append(module.weight.dtype))
    tokens = torch.randint(0, 40, (2, 4, 30))
    model.stage_logits(tokens, model.embed_conditions(conditions("reel", "jig")), 1).float().square().mean().backward()
    assert seen == [torch.bfloat16] * 2
    assert {value.dtype for value in model.parameters()} == {torch.float32}
    fsdp.sync_gradients(model)
    gradients = {name: value.grad for name, value in model.named_parameters()}
    assert all(value is not None and value.dtype == torch.float32 for value in gradients.values())
    assert [bool(fsdp.local_part(head.weight.grad).any()) for head in model.linears] == [False, True, False, False]


def test_frames_keep_positions_of_their_own_in_bfloat16(group: None) -> None:
    model = build(MagnetLMModel, conditioned=False)
    fsdp.shard(model, Sharding(param_dtype="bfloat16"), "cpu")
    seen: list[torch.Tensor] = []
    model.transformer.layers[0].register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    with torch.no_grad():
        model.stage_logits(torch.zeros(1, 4, 500, dtype=torch.long), {}, 1)
    assert seen[0].dtype == torch.bfloat16 and len(seen[0][0].unique(dim=0)) == 500


def test_a_sharded_model_generates_by_the_reference_path(group: None) -> None:
    """The fast path needs unsharded weights, which no rank has."""
    one, two = build(MagnetLMModel), build(MagnetLMModel)
    fsdp.shard(two, Sharding(param_dtype="float32"), "cpu")
    settings = dict(decoding_steps=[3, 2, 2, 2], use_sampling=False, max_gen_len=30, conditions=conditions("reel", "jig"))
    assert torch.equal(one.generate(engine="plain", **settings), two.generate(**settings))
    with pytest.raises(ValueError, match="sharded"):
        two.generate(engine="lean", **settings)


@pytest.mark.parametrize("max_norm", (0.1, 1e6))
def test_the_gradient_norm_includes_sharded_and_unsharded_gradients(group: None, max_norm: float) -> None:
    one, two = build(MagnetLMModel).train(), build(MagnetLMModel).train()
    fsdp.shard(two, Sharding(param_dtype="float32"), "cpu")
    tokens = torch.randint(0, 40, (2, 4, 30))
    for model in (one, two):
        model.stage_logits(tokens, model.embed_conditions(conditions("reel", "jig")), 1).square().mean().backward()
    fsdp.sync_gradients(two)
    expected = torch.nn.utils.clip_grad_norm_(one.parameters(), max_norm)
    assert float(fsdp.clip_grad_norm(two, max_norm)) == pytest.approx(float(expected), rel=1e-5)
    for mine, theirs in zip(one.parameters(), two.parameters(), strict=True):
        expected = torch.zeros_like(mine) if mine.grad is None else mine.grad
        assert torch.allclose(fsdp.local_part(theirs.grad), expected, atol=1e-7)


def test_weights_that_do_not_match_are_refused_before_any_is_loaded(group: None) -> None:
    model = build(MagnetLMModel)
    fsdp.shard(model, Sharding(), "cpu")
    shards = fsdp.ShardedState(model)
    before = {name: value.clone() for name, value in shards.state_dict().items()}
    for name, value in (("linears.1.weight", torch.zeros(3, 64)), ("nowhere", torch.zeros(1)), ("emb.0.weight", None)):
        state = {key: torch.zeros_like(one) for key, one in before.items()} | {name: value}
        with pytest.raises(ValueError, match=name):
            shards.load_state_dict({key: one for key, one in state.items() if one is not None})
    assert all(torch.equal(value, shards.state_dict()[name]) for name, value in before.items())


def test_shards_of_another_number_of_ranks_are_refused(group: None, tmp_path: Path) -> None:
    solver = make_solver(tmp_path, "fsdp.use=true")
    for name in ("checkpoint.th", "checkpoint.th.1"):
        (solver.folder / name).touch()
    with solver.xp.enter(), pytest.raises(ValueError, match="shards of 2 ranks, but this run has 1"):
        solver.restore()
