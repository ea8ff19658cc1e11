"""Runs of sharded models by two ranks: preemption, checkpoints and loading. On GPUs, also training."""
import signal
import tempfile
import typing as tp
from pathlib import Path

import flashy
import pytest
import torch
from torch.distributed.tensor import DTensor

from magnet_plugin.models import checkpoints

from ..helpers.rank_group import make_solver, max_difference, run_ranks, train, weights
from ..helpers.toy_solver import same

SHARDED = ("fsdp.use=true", "fsdp.param_dtype=float32")


def state_of(solver: tp.Any) -> dict:
    """This rank's state at the end of a run."""
    state = {key: value for key, value in solver.state_dict().items() if not key.startswith("xp") and key != "history"}
    if torch.distributed.is_initialized():
        torch.distributed.barrier()                          # wait until the other rank has written and removed its files
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
def test_a_sharded_run_that_was_preempted_ends_as_an_undisturbed_one(ran: tuple[Path, list], stage: str) -> None:
    for found in ran[1]:
        whole, stopped, resumed = found["undisturbed"], found[f"stopped in {stage}"], found[f"resumed in {stage}"]
        assert same(resumed["state"], whole["state"]) and resumed["losses"] == whole["losses"]
        assert stopped["files"] == ["checkpoint.th", "checkpoint.th.1", "preempted.th", "preempted.th.1"]
        assert resumed["files"] == whole["files"] == ["checkpoint.th", "checkpoint.th.1"]
        assert resumed["updates"] == ([2, 3] if stage == "train" else [])
        assert same(stopped["state"]["model"], whole["state"]["model"]) == (stage == "valid") and len(stopped["losses"]) == 1


@pytest.mark.integ
def test_all_ranks_repeat_the_epoch_if_the_preemption_file_of_one_is_missing(ran: tuple[Path, list]) -> None:
    for found in ran[1]:
        assert found["lost"]["updates"] == [0, 1, 2, 3] and same(found["lost"]["state"], found["undisturbed"]["state"])


@pytest.mark.integ
def test_each_rank_saves_its_shards_and_rank_0_also_the_unsharded_best_weights(ran: tuple[Path, list]) -> None:
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
def test_the_best_weights_load_into_sharded_and_unsharded_models(ran: tuple[Path, list]) -> None:
    folder, found = ran
    best = {source: checkpoints.load_package(str(next((folder / source).glob("xps/*/checkpoint.th"))), "")["best_state"]
            for source in ("one", "plain")}
    for name, source in (("from shards", "one"), ("shards to whole", "one"), ("whole to shards", "plain")):
        for rank in found:
            assert max_difference(rank[name]["whole"], best[source]) == 0, name
            ema = rank[name]["state"]["ema"]["state"]["model"]
            assert all(torch.equal(value, rank[name]["state"]["model"][key]) for key, value in ema.items()), name
    assert max_difference(best["one"], best["plain"]) < 1e-4, "training with FSDP equals training without it"
    assert found[0]["undisturbed"]["losses"] == pytest.approx(found[0]["plain"]["losses"], rel=1e-5)


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
