"""Sharded models: what is sharded, how it is saved and loaded, and which settings are refused."""
import signal
import tempfile
import typing as tp
from pathlib import Path

import flashy
import pytest
import torch
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor

from magnet_plugin.distributed import fsdp
from magnet_plugin.distributed.fsdp import Sharding
from magnet_plugin.models import builders, checkpoints
from magnet_plugin.solvers.magnet import MagnetSolver

from ..conftest import compose
from ..helpers.rank_group import make_solver, max_difference, run_ranks, train, weights
from ..helpers.small_models import HybridMagnetLMModel, MagnetLMModel, build, conditions
from ..helpers.toy_solver import same

SHARDED = ("fsdp.use=true", "fsdp.param_dtype=float32")


@pytest.fixture
def group(tmp_path: Path) -> tp.Iterator[None]:
    """A process group of only this process."""
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
    assert builders.get_sharding(compose("solver=magnet/debug", *overrides)) is None, "without FSDP they are allowed"


def test_without_a_process_group_sharding_is_refused() -> None:
    with pytest.raises(ValueError, match="process group"):
        fsdp.shard(build(MagnetLMModel), Sharding(), "cpu")


@pytest.mark.parametrize("klass", (MagnetLMModel, HybridMagnetLMModel))
@pytest.mark.parametrize("per_block", (True, False))
def test_everything_but_the_conditioners_is_sharded(group: None, klass: type, per_block: bool) -> None:
    model = build(klass)
    description = model.condition_provider.conditioners["description"]
    description.__dict__["t5"] = frozen = torch.nn.Linear(3, 3)          # like a frozen T5 in AudioCraft
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


def test_generation_uses_the_reference_path(group: None) -> None:
    """The fast path packs whole weights, which a rank does not have."""
    one, two = build(MagnetLMModel), build(MagnetLMModel)
    fsdp.shard(two, Sharding(param_dtype="float32"), "cpu")
    settings = dict(decoding_steps=[3, 2, 2, 2], use_sampling=False, max_gen_len=30, conditions=conditions("reel", "jig"))
    assert torch.equal(one.generate(engine="plain", **settings), two.generate(**settings))
    with pytest.raises(ValueError, match="sharded"):
        two.generate(engine="lean", **settings)


@pytest.mark.parametrize("max_norm", (0.1, 1e6))
def test_the_gradient_norm_covers_sharded_and_whole_gradients(group: None, max_norm: float) -> None:
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


def test_weights_that_do_not_match_are_refused_and_nothing_is_loaded(group: None) -> None:
    model = build(MagnetLMModel)
    fsdp.shard(model, Sharding(), "cpu")
    shards = fsdp.ShardedState(model)
    before = {name: value.clone() for name, value in shards.state_dict().items()}
    for name, value in (("linears.1.weight", torch.zeros(3, 64)), ("nowhere", torch.zeros(1)), ("emb.0.weight", None)):
        state = {key: torch.zeros_like(one) for key, one in before.items()} | {name: value}
        with pytest.raises(ValueError, match=name):
            shards.load_state_dict({key: one for key, one in state.items() if one is not None})
    assert all(torch.equal(value, shards.state_dict()[name]) for name, value in before.items())


def state_of(solver: tp.Any) -> dict:
    """This rank's state at the end of a run."""
    state = {key: value for key, value in solver.state_dict().items() if not key.startswith("xp") and key != "history"}
    if torch.distributed.is_initialized():
        torch.distributed.barrier()                          # until the other rank has written and removed its files
    files = sorted(path.name for path in solver.folder.glob("*.th*") if not path.name.endswith(".done"))
    return {"state": state, "whole": weights(solver.model), "files": files,
            "losses": [epoch["valid"]["ce"] for epoch in solver.history]}


def run(folder: Path, *overrides: str, stop: str = "") -> dict:
    """Run two epochs. Rank 1 gets a signal in the stage `stop` of the second."""
    solver = make_solver(folder, *overrides)
    step, updates = solver.run_step, []

    def signalled(index: int, batch: tp.Any, metrics: dict) -> dict:
        if solver.epoch == 2 and solver.current_stage == stop and index == 1 and flashy.distrib.rank() == 1:
            signal.raise_signal(signal.SIGUSR1)
        updates.extend([index] * solver.is_training)
        return step(index, batch, metrics)
    solver.run_step = signalled
    with solver.xp.enter():
        if stop:
            with pytest.raises(SystemExit):
                solver.run()
        else:
            solver.run()
    return state_of(solver) | {"updates": updates}


def scenarios(folder: Path) -> dict[str, dict]:
    """Run a sharded model undisturbed, stopped and resumed, and models that start from it."""
    found = {"undisturbed": run(folder / "one", *SHARDED)}
    for stage in ("train", "valid"):
        found[f"stopped in {stage}"] = run(folder / stage, *SHARDED, stop=stage)
        if stage == "valid" and flashy.distrib.rank() == 1:       # as if killed before the file was renamed
            [kept] = (folder / stage).glob("xps/*/preempted.th.1")
            kept.rename(f"{kept}.tmp")
            kept.with_name("preempted.th.tmp.done").touch()
        torch.distributed.barrier()
        found[f"resumed in {stage}"] = run(folder / stage, *SHARDED)
    run(folder / "lost", *SHARDED, stop="train")
    if flashy.distrib.rank() == 1:
        next((folder / "lost").glob("xps/*/preempted.th.1")).unlink()
    torch.distributed.barrier()
    found["lost"] = run(folder / "lost", *SHARDED)
    found["plain"] = run(folder / "plain")
    for name, source, overrides in (("from shards", "one", SHARDED), ("shards to whole", "one", ()),
                                    ("whole to shards", "plain", SHARDED)):
        [path] = (folder / source).glob("xps/*/checkpoint.th")
        solver = make_solver(folder / name, *overrides, f"continue_from={path}")
        with solver.xp.enter():
            solver.restore()
        found[name] = state_of(solver)
    return found


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[dict[str, dict]]]:
    folder = tmp_path_factory.mktemp("scenarios")
    return folder, run_ranks(2, scenarios, folder)


@pytest.mark.integ
@pytest.mark.parametrize("stage", ("train", "valid"))
def test_a_sharded_run_that_was_stopped_ends_as_if_undisturbed(ran: tuple[Path, list], stage: str) -> None:
    for found in ran[1]:
        whole, stopped, resumed = found["undisturbed"], found[f"stopped in {stage}"], found[f"resumed in {stage}"]
        assert same(resumed["state"], whole["state"]) and resumed["losses"] == whole["losses"]
        assert stopped["files"] == ["checkpoint.th", "checkpoint.th.1", "preempted.th", "preempted.th.1"]
        assert resumed["files"] == whole["files"] == ["checkpoint.th", "checkpoint.th.1"]
        assert resumed["updates"] == ([2, 3] if stage == "train" else [])
        assert same(stopped["state"]["model"], whole["state"]["model"]) == (stage == "valid") and len(stopped["losses"]) == 1


@pytest.mark.integ
def test_if_the_file_of_a_rank_is_missing_all_ranks_repeat_the_epoch(ran: tuple[Path, list]) -> None:
    for found in ran[1]:
        assert found["lost"]["updates"] == [0, 1, 2, 3] and same(found["lost"]["state"], found["undisturbed"]["state"])


@pytest.mark.integ
def test_each_rank_saves_its_shards_and_rank_0_the_whole_best_weights(ran: tuple[Path, list]) -> None:
    folder, (first, second) = ran
    files = [checkpoints.load(next((folder / "one").glob(f"xps/*/{name}"))) for name in ("checkpoint.th", "checkpoint.th.1")]
    for name, value in first["undisturbed"]["whole"].items():
        parts = [file["model"][name] for file in files]
        if name.startswith("condition_provider."):
            assert all(torch.equal(part, value) for part in parts), name
        else:
            assert torch.equal(torch.cat(parts), value) and len(parts[0]) == -(-len(value) // 2), name
        best = files[0]["fsdp_best_state"]["model"][name]
        halves = [file["best_state"]["model"][name] for file in files]
        assert best.shape == value.shape
        assert torch.equal(best, halves[0] if name.startswith("condition_provider.") else torch.cat(halves)), name
    assert first["undisturbed"]["whole"].keys() == files[0]["fsdp_best_state"]["model"].keys()
    moments = [value for entry in files[1]["optimizer"]["state"].values() for value in entry.values()]
    assert moments and not any(isinstance(value, DTensor) for value in moments)


@pytest.mark.integ
def test_the_best_weights_load_into_sharded_and_whole_models(ran: tuple[Path, list]) -> None:
    folder, found = ran
    best = {source: checkpoints.load_package(str(next((folder / source).glob("xps/*/checkpoint.th"))), "")["best_state"]
            for source in ("one", "plain")}
    for name, source in (("from shards", "one"), ("shards to whole", "one"), ("whole to shards", "plain")):
        for rank in found:
            assert max_difference(rank[name]["whole"], best[source]) == 0, name
            ema = rank[name]["state"]["ema"]["state"]["model"]
            assert all(torch.equal(value, rank[name]["state"]["model"][key]) for key, value in ema.items()), name
    assert max_difference(best["one"], best["plain"]) < 1e-4, "training with and without FSDP is the same"
    assert found[0]["undisturbed"]["losses"] == pytest.approx(found[0]["plain"]["losses"], rel=1e-5)


def test_shards_of_another_number_of_ranks_are_refused(group: None, tmp_path: Path) -> None:
    solver = make_solver(tmp_path, *SHARDED)
    for name in ("checkpoint.th", "checkpoint.th.1"):
        (solver.folder / name).touch()
    with solver.xp.enter(), pytest.raises(ValueError, match="shards of 2 ranks, but this run has 1"):
        solver.restore()


@pytest.mark.gpu
def test_one_gpu_trains_saves_and_restores() -> None:
    with tempfile.TemporaryDirectory() as name:
        torch.distributed.init_process_group("nccl", init_method=f"file://{name}/meeting", rank=0, world_size=1)
        try:
            settings = ("device=cuda", "optim.ema.device=cuda", "fsdp.use=true")
            one = train(Path(name) / "a", *settings, "fsdp.param_dtype=float32")
            plain = train(Path(name) / "b", *settings[:2])
            assert max_difference(one["model"], plain["model"]) < 1e-3
            half = run(Path(name) / "c", *settings)
            assert all(torch.isfinite(value).all() for value in half["whole"].values())
            solver = make_solver(Path(name) / "c", *settings)
            with solver.xp.enter():
                solver.restore()
            assert max_difference(weights(solver.model), half["whole"]) == 0
        finally:
            torch.distributed.destroy_process_group()


@pytest.mark.gpu
def test_two_gpus_agree_with_one(tmp_path: Path) -> None:
    if torch.cuda.device_count() < 2:
        pytest.skip("needs two GPUs")
    cuda = ("device=cuda", "optim.ema.device=cuda")
    [one] = run_ranks(1, train, tmp_path / "one", *cuda, backend="nccl")
    for overrides in ((), SHARDED):
        for rank in run_ranks(2, train, tmp_path / "two", *cuda, *overrides, backend="nccl"):
            assert max_difference(rank["model"], one["model"]) < 1e-3
            for mine, expected in zip(rank["metrics"], one["metrics"], strict=True):
                assert mine["ce"] == pytest.approx(expected["ce"], rel=1e-4)
