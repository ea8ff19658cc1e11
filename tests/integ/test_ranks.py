"""Several ranks, for real: they train as one does, and one that is lost ends the job with its cause."""
import contextlib
import os
import signal
import subprocess
import sys
import time
import typing as tp
from pathlib import Path

import pytest
import torch
from dora.conf import DoraConfig

from ..helpers.rank_group import LENGTHS, STEPS, max_difference, run_ranks, train
from .runs import DEBUG, ROOT, environment, history

pytestmark = pytest.mark.integ
HYBRID = ("dset=audio/example", "dataset.num_workers=0", "dataset.batch_size=4", "schedule.lr_scheduler=null")
#: What a run is trained with, and what it is to equal on one rank.
CASES: dict[str, tuple[str, tuple[str, ...]]] = {
    "plain": ("plain", ()), "accumulate": ("plain", ("optim.accumulate=2",)), "lazy": ("plain", ("optim.eager_sync=false",)),
    "hybrid": ("hybrid", HYBRID), "hybrid accumulate": ("hybrid", (*HYBRID, "optim.accumulate=2")),
    "sharded": ("plain", ("fsdp.use=true", "fsdp.param_dtype=float32")),
    "sharded hybrid": ("hybrid", (*HYBRID, "fsdp.use=true", "fsdp.param_dtype=float32")),
    "all that saves memory": ("plain", ("fsdp.use=true", "fsdp.param_dtype=float32", "fsdp.sharding_strategy=full_shard",
                                        "optim.accumulate=2", "transformer_lm.checkpointing=torch")),
    "bfloat16": ("plain", ("fsdp.use=true",))}
TWO = [*DEBUG[:1], "num_threads=1"]


def trained(folder: Path, *cases: str) -> dict[str, dict]:
    bases = {"plain": "magnet/debug", "hybrid": "magnet/hybrid"}
    return {case: train(folder / case, *CASES[case][1], base=bases[CASES[case][0]]) for case in cases}


@pytest.fixture(scope="module")
def updates(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, dict], list[dict[str, dict]]]:
    """A few updates by one rank with four clips, and by two ranks with two each."""
    folder = tmp_path_factory.mktemp("updates")
    [one] = run_ranks(1, trained, folder / "one", "plain", "hybrid")
    return one, run_ranks(2, trained, folder / "two", *CASES)


@pytest.mark.parametrize("case", CASES)
def test_two_ranks_with_half_of_the_batch_each_are_one_with_all_of_it(updates: tuple, case: str) -> None:
    expected, found = updates[0][CASES[case][0]], [rank[case] for rank in updates[1]]
    assert LENGTHS[0] > 2 * LENGTHS[-1], "the second rank's clips are mostly padding"
    for whole, first, second in zip(expected["masked"], *(rank["masked"] for rank in found), strict=True):
        assert first > 2 * second and first + second == whole, "so that it has fewer masked frames"
    tolerance = {"model": 2e-5, "optimizer": 1e-7} if case != "bfloat16" else {"model": 0.2, "optimizer": 5e-3}
    for rank in found:
        for part, limit in tolerance.items():
            assert max_difference(expected[part], rank[part]) < limit, part
            assert max_difference(found[0][part], rank[part]) == 0, part
        for one, two in zip(expected["metrics"], rank["metrics"], strict=True):
            assert two == pytest.approx(one, rel=1e-4 if case != "bfloat16" else 0.02)
        if "sharded" not in case and case not in ("bfloat16", "all that saves memory"):
            assert max_difference(expected["ema"], rank["ema"]) < 1e-5
    assert expected["metrics"][-1]["ce"] != expected["metrics"][0]["ce"]


@pytest.mark.parametrize("case", [case for case, (kind, _) in CASES.items() if kind == "plain"])
def test_heads_of_other_stages_get_gradients_of_zero_on_all_ranks(updates: tuple, case: str) -> None:
    stages = [(step + 1) % 4 for step in range(STEPS)]
    for rank in updates[1]:
        assert [[index for index, size in enumerate(heads) if size] for heads in rank[case]["heads"]] == \
            [[stage] for stage in stages]


def late(folder: Path) -> str:
    """The second rank does not come to the third collective."""
    from dora.xp import XP

    from magnet_plugin.distributed import process_groups as ranks
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=(folder / "port").read_text())
    with XP(dora=DoraConfig(dir=folder), cfg={}, argv=[], delta=[]).enter():
        ranks.init(4.0)
        value = torch.ones(())
        for number in range(3):
            if number == 2 and torch.distributed.get_rank() == 1:
                time.sleep(8)
                return ""
            try:
                torch.distributed.all_reduce(value)
            except RuntimeError as error:
                return f"{number} {error}"
    return "no error"


def alone(folder: Path) -> tuple[int, str]:
    """A group of one; then one of two, whose second rank is not there."""
    from dora.xp import XP

    from magnet_plugin.distributed import process_groups as ranks
    with XP(dora=DoraConfig(dir=folder), cfg={}, argv=[], delta=[]).enter():
        ranks.init(60.0)
        assert not torch.distributed.is_initialized()
        ranks.init(60.0, force=True)
        size = torch.distributed.get_world_size()
        torch.distributed.destroy_process_group()
        os.environ.update(WORLD_SIZE="2", MASTER_PORT=(folder / "port").read_text())
        with pytest.raises(RuntimeError) as missing:
            ranks.init(2.0)
    return size, str(missing.value)


def test_ranks_wait_for_each_other_as_long_as_the_timeout_says(tmp_path: Path) -> None:
    import socket
    with socket.create_server(("127.0.0.1", 0)) as free:
        (tmp_path / "port").write_text(str(free.getsockname()[1]))
    first, second = run_ranks(2, late, tmp_path, backend="")
    assert first.startswith("2 ") and "4000" in first and "imed out" in first and second == ""
    [(size, missing)] = run_ranks(1, alone, tmp_path)
    assert size == 1 and "the 2 ranks did not find each other within distrib.timeout=2 s" in missing


Job = tuple[subprocess.Popen, tp.Callable[[str], str], tp.Callable[[int], int]]


@contextlib.contextmanager
def job(folder: Path, *overrides: str) -> tp.Iterator[Job]:
    """`dora run -d` of two ranks: the process, `follow(words)` waits for a line of the first rank, `pid(rank)`."""
    command = [sys.executable, "-m", "dora", "run", "--ddp_workers", "2", "-d", *overrides]
    running = subprocess.Popen(command, cwd=ROOT, env=environment(folder), text=True, stdout=subprocess.PIPE,
                               stderr=subprocess.STDOUT, start_new_session=True)
    seen: list[str] = []

    def follow(words: str) -> str:
        assert running.stdout is not None
        for line in running.stdout:
            seen.append(line)
            if words in line:
                return line
        raise AssertionError("".join(seen)[-3000:])

    def pid(rank: int) -> int:
        children = Path(f"/proc/{running.pid}/task/{running.pid}/children").read_text().split()
        [found] = [int(child) for child in children
                   if f"RANK={rank}".encode() in Path(f"/proc/{child}/environ").read_bytes().split(b"\0")]
        return found
    try:
        yield running, follow, pid
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(running.pid, signal.SIGCONT)
            os.killpg(running.pid, signal.SIGKILL)
        running.wait()


def log_of(folder: Path, rank: int) -> str:
    [log] = (folder / "runs" / "xps").glob(f"*/solver.log.{rank}")
    return log.read_text()


def end(running: subprocess.Popen, within: float) -> str:
    """The rest of what a failing job prints, which ends in time."""
    start = time.monotonic()
    out = running.communicate(timeout=within + 60)[0]
    assert running.returncode and time.monotonic() - start < within
    return out


#: Lets the second rank fail in its second epoch, as no setting does.
FAILURE = """
import importlib.abc, os, sys
class Fail(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name == "magnet_plugin.solvers.hybrid_magnet":      # the solvers are there
            solver = sys.modules["magnet_plugin.solvers.magnet"]
            draws = solver.stage_and_generator
            def failing(seed, epoch, step, *rest):
                if epoch == 2 and step == 1 and os.environ.get("RANK") == "1":
                    raise ValueError("a clip that only this rank has")
                return draws(seed, epoch, step, *rest)
            solver.stage_and_generator = failing
sys.meta_path.insert(0, Fail())
"""


def test_sharded_ranks_train_until_one_fails_and_load_by_signature(tmp_path: Path, monkeypatch: pytest.MonkeyPatch
                                                                   ) -> None:
    """All stages of the first epoch, on clips that are no equal shares."""
    (tmp_path / "sitecustomize.py").write_text(FAILURE)
    with monkeypatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")]))
        with job(tmp_path, *TWO, "fsdp.use=true", "optim.updates_per_epoch=4", "dataset.evaluate.num_samples=5",
                 "evaluate.every=1", "generate.every=1") as (running, _, _):
            out = end(running, 400)
    [folder] = (tmp_path / "runs" / "xps").iterdir()
    assert len(history(tmp_path, folder.name)) == 1 and len(list(folder.glob("samples/1/*.wav"))) == 2
    for told in (out, log_of(tmp_path, 0)):
        assert "Rank 1 of 2 failed: ValueError: a clip that only this rank has" in told
        assert "train, epoch 2, update 2 of 4" in told and "solver.log.1" in told and "worker_1.log" in told
    assert "Traceback" in log_of(tmp_path, 1) and "This rank failed" in log_of(tmp_path, 1)
    assert "This rank failed" not in log_of(tmp_path, 0)
    code = ("import torch, magnet_plugin; magnet_plugin.register()\n"
            "from audiocraft.solvers.musicgen import MusicGenSolver\n"
            "from magnet_plugin import MAGNeT, checkpoints\n"
            f"solver = MusicGenSolver.get_eval_solver_from_sig('{folder.name}', autocast=False)\n"
            f"best = checkpoints.load('{folder}/checkpoint.th')['fsdp_best_state']['model']\n"
            f"out = checkpoints.export('//sig/{folder.name}', '{tmp_path}/out')\n"
            f"names = '//sig/{folder.name}', str(out)\n"
            "models = [solver.model, *(MAGNeT.get_pretrained(name, device='cpu').lm for name in names)]\n"
            "for model in models:\n"
            "    own = model.state_dict()\n"
            "    assert own.keys() == best.keys() and all(torch.equal(own[key], best[key].float()) for key in own)\n"
            "print(len(models), 'loaded')")
    done = subprocess.run([sys.executable, "-c", code], env=environment(tmp_path), cwd=ROOT, text=True, capture_output=True)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "3 loaded" in done.stdout


def test_a_rank_that_is_killed_ends_the_job(tmp_path: Path) -> None:
    with job(tmp_path, *TWO, "optim.updates_per_epoch=10000", "logging.log_updates=1000") as (running, follow, pid):
        follow("Train | Epoch 1 | 10/10000")
        os.kill(pid(1), signal.SIGKILL)
        out = end(running, 20)
    for told in (out, log_of(tmp_path, 0)):
        assert "Rank 1 of 2 died without an error message" in told and "solver.log.1" in told
        assert "train, epoch 1, update" in told
    assert "This rank failed" not in log_of(tmp_path, 0), "it follows from the other's end"


def test_a_rank_that_is_stopped_ends_the_job_after_the_timeout(tmp_path: Path) -> None:
    """After an epoch whose nine clips to validate with are no equal shares."""
    with job(tmp_path, *TWO, "optim.updates_per_epoch=4", "optim.epochs=1000", "dataset.valid.num_samples=9",
             "distrib.timeout=25") as (running, follow, pid):
        follow("Valid Summary | Epoch 2")
        os.kill(pid(1), signal.SIGSTOP)
        out = end(running, 45)
    [folder] = (tmp_path / "runs" / "xps").iterdir()
    epochs = history(tmp_path, folder.name)
    assert epochs[0]["train"]["ce"] < 8 and {"ce_q1", "ce_q2", "ce_q3"} <= set(epochs[0]["valid"])
    assert "Train Summary" in log_of(tmp_path, 1), "the second rank has trained"
    for told in (out, log_of(tmp_path, 0)):
        assert "Rank 1 of 2 has been silent for 25 s (distrib.timeout)" in told and "solver.log.1" in told
