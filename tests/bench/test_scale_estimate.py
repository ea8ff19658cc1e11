"""`bench.scale.estimate`: invariants of memory, time and network traffic."""
import dataclasses
import subprocess
import sys
from pathlib import Path

import pytest

from magnet_plugin.bench.scale import costs, recipes, report
from magnet_plugin.bench.scale.estimate import Plan, estimate, network, step_of
from magnet_plugin.bench.scale.hardware import GPUS, Assumptions, all_reduce, gather
from magnet_plugin.bench.scale.recipes import Recipe

ASSUMED = Assumptions()
COUNTS = (1, 2, 4, 8, 16, 32, 64)
RANK = """
import os, sys, types
import torch
from omegaconf import OmegaConf
import magnet_plugin
magnet_plugin.register()
from magnet_plugin.bench import baselines
from magnet_plugin.bench.settings import Size
from magnet_plugin.models.lm_magnet import MagnetLMModel
from magnet_plugin.solvers.magnet import MagnetSolver
from magnet_plugin.distributed.reduction import touch_all
sys.stdout.flush()
rank = 0 if os.fork() else 1
torch.distributed.init_process_group("gloo", init_method="file://" + sys.argv[1], rank=rank, world_size=2)
model = baselines.build(MagnetLMModel, Size(16, 2, 2), 20, torch.device("cpu"), torch.float32, seed=rank)
solver = types.SimpleNamespace(
    model=model.train(), deadlock_detect=types.SimpleNamespace(update=lambda name: None),
    cfg=OmegaConf.create({"fsdp": {"use": False}, "optim": {"eager_sync": True, "accumulate": 1}}))
sent, real = [], torch.distributed.all_reduce
def counting(tensor, *args, **kwargs):
    sent.append((tensor.numel() * tensor.element_size(), tensor.is_floating_point(), tensor.data_ptr()))
    return real(tensor, *args, **kwargs)
torch.distributed.all_reduce = counting
conditions = model.condition_provider(model.condition_provider.tokenize(baselines.captions(2)))
loss = model.stage_logits(torch.randint(2048, (2, 4, 20)), conditions, 1).square().mean()
MagnetSolver._backward(solver, touch_all(loss, model.linears.parameters()))
pointers = {pointer for size, floating, pointer in sent if floating}
shared = sum(p.grad.data_ptr() in pointers for p in model.parameters())
total = float(sum(p.grad.double().sum() for p in model.parameters()))
counts = [rank, sum(size for size, floating, _ in sent if floating), sum(floating for _, floating, _ in sent),
          sum(size for size, floating, _ in sent if not floating), sum(p.numel() for p in model.parameters()),
          len(list(model.parameters())), shared, total]
with open(sys.argv[1] + str(rank), "w") as file:          # gloo also writes to the terminal
    print(*counts, file=file)
torch.distributed.destroy_process_group()
if rank == 0:
    os.wait()
os._exit(0)
"""


@pytest.fixture(scope="module")
def paper() -> dict[str, Recipe]:
    """Small music, replicated and sharded."""
    adamw = ["optim.optimizer=adamw", "optim.lr=1e-4"]
    return {mode: recipes.read(recipes.settings("magnet/magnet_32khz", "small", None, mode == "FSDP", more))
            for mode, more in (("DDP", []), ("FSDP", adamw))}


@pytest.mark.integ
def test_network_traffic_of_two_ranks(paper: dict[str, Recipe], tmp_path: Path) -> None:
    """The solver's own backward pass on gloo: every gradient is reduced once, in float32 and in place."""
    out = subprocess.run([sys.executable, "-c", RANK, str(tmp_path / "store")], capture_output=True, text=True, timeout=200)
    files = [tmp_path / f"store{rank}" for rank in (0, 1)]
    assert all(path.exists() for path in files), (out.returncode, out.stdout[-2000:], out.stderr[-2000:])
    lines = [path.read_text().split() for path in files]
    assert lines[0][1:] == lines[1][1:], "ranks agree, in the gradients too"
    reduced, collectives, checked, parameters, tensors, shared = map(int, lines[0][1:7])
    recipe = dataclasses.replace(paper["DDP"], units=(parameters,), tensors=tensors)
    assert reduced == 4 * recipe.parameters and collectives == tensors and checked <= 16
    assert shared == tensors, "a reduced copy of each gradient would double their memory"
    sent, _ = network(recipe, Plan(2, "H100", 2), 2, ASSUMED.link, 1.0, 1.0)
    assert sent == all_reduce(reduced, 2).bytes == 2 * (2 - 1) / 2 * reduced


@pytest.mark.parametrize("ranks", COUNTS[1:])
def test_traffic_inside_and_between_nodes(ranks: int) -> None:
    size = 64e9
    whole, half = all_reduce(size, ranks), gather(size, ranks)
    assert whole.bytes == pytest.approx(2 * (ranks - 1) / ranks * size) and half.bytes == pytest.approx(whole.bytes / 2)
    assert all_reduce(size, ranks, 3).latency == pytest.approx(3 * whole.latency)
    nodes = max(1, ranks // 8)
    assert 8 * half.outside == pytest.approx((nodes - 1) / nodes * size), "what leaves a node leaves it once"
    assert whole.latency > all_reduce(size, ranks // 2).latency and whole.latency < 1e-3


@pytest.mark.parametrize("mode", report.MODES)
def test_more_gpus_need_less_memory_and_time_each(paper: dict[str, Recipe], mode: str) -> None:
    recipe = paper[mode]
    found = [estimate(recipe, Plan(count, "H100", 192), ASSUMED) for count in COUNTS]
    assert all(one.peak >= two.peak for one, two in zip(found, found[1:]))
    assert [one.most for one in found] == sorted(one.most for one in found)
    assert all(one.step > two.step for one, two in zip(found, found[1:]))
    states = [sum(one.memory[name] for name in ("weights", "optimizer", "EMA", "gradients")) for one in found]
    for count, size in zip(COUNTS, states):
        shares = count if mode == "FSDP" else 1
        padding = 4 * (1 + 3 + 1 + 1) * len(recipe.units) if mode == "FSDP" else 0
        assert 0 <= size - states[0] / shares <= padding


def test_traffic_of_fsdp_strategies(paper: dict[str, Recipe]) -> None:
    """Two bytes gathered and four reduced per parameter; `full_shard` gathers twice and holds less."""
    recipe = paper["FSDP"]
    whole = dataclasses.replace(recipe, fsdp="full_shard")
    one, two = (estimate(each, Plan(64, "H100", 192), ASSUMED) for each in (recipe, whole))
    assert one.sent == pytest.approx(63 / 64 * (2 + 4) * recipe.parameters)
    assert two.sent == pytest.approx(63 / 64 * (2 + 2 + 4) * recipe.parameters)
    assert two.peak < one.peak and one.seconds["network"] == 0
    one, two = (network(each, Plan(64, "H100", 192), 2, ASSUMED.link, 0.0, 0.0)[1] for each in (recipe, whole))
    assert two > one > 0, "without passes to overlap with"


def test_bounds_of_a_step(paper: dict[str, Recipe], monkeypatch: pytest.MonkeyPatch) -> None:
    recipe, plan = paper["DDP"], Plan(32, "H100", 192)
    base = estimate(recipe, plan, ASSUMED)
    slower = estimate(recipe, plan, dataclasses.replace(ASSUMED, efficiency=0.1))
    assert base.bound == "memory" and base.seconds["network"] == 0
    assert slower.bound == "compute" and slower.seconds["memory"] == base.seconds["memory"]
    monkeypatch.setitem(GPUS, "H100", dataclasses.replace(GPUS["H100"], outside=1e9))
    thin = estimate(recipe, plan, ASSUMED)
    assert thin.bound == "network" and thin.step > base.step
    lazy = estimate(dataclasses.replace(recipe, eager=False), plan, ASSUMED)
    assert lazy.seconds["network"] > thin.seconds["network"], "without eager_sync nothing overlaps"


def test_the_assumed_efficiency_is_near_what_megatron_reports() -> None:
    """docs/scale.md: the medium model with many clips per GPU reaches about 44 % of an A100's peak."""
    overrides = ["optim.optimizer=adamw", "optim.lr=1e-4"]
    recipe = recipes.read(recipes.settings("magnet/magnet_32khz", "medium", None, True, overrides))
    plan = Plan(32, "A100-80", 14 * 32)
    products = sum(costs.flops(recipe.shape, step_of(recipe, plan.clips, ASSUMED)))
    reached = products / estimate(recipe, plan, ASSUMED).step / GPUS["A100-80"].half
    assert reached == pytest.approx(0.44, abs=0.05)


@pytest.mark.parametrize("gpu", GPUS)
def test_the_largest_batch_and_the_smallest_accumulate(paper: dict[str, Recipe], gpu: str) -> None:
    recipe = paper["DDP"]
    most = estimate(recipe, Plan(1, gpu, 1), ASSUMED).most
    assert estimate(recipe, Plan(1, gpu, most), ASSUMED).fits
    assert not estimate(recipe, Plan(1, gpu, most + 1), ASSUMED).fits
    more = estimate(recipe, Plan(1, gpu, most + most // 4), ASSUMED)
    for parts, fits in ((more.accumulate, True), (more.accumulate - 1, False)):
        in_parts = dataclasses.replace(recipe, accumulate=parts)
        assert estimate(in_parts, Plan(1, gpu, most + most // 4), ASSUMED).fits == fits


def test_checkpointing_stores_less_and_computes_more(paper: dict[str, Recipe]) -> None:
    recipe = paper["DDP"]
    again = dataclasses.replace(recipe, shape=dataclasses.replace(recipe.shape, checkpointing=True))
    one, two = (estimate(each, Plan(8, "H100", 192), ASSUMED) for each in (recipe, again))
    assert two.memory["activations"] < one.memory["activations"] / 4 and two.most > one.most
    assert two.seconds["compute"] > one.seconds["compute"]


def test_a_recipe_without_text_or_ema_needs_less(paper: dict[str, Recipe]) -> None:
    recipe = paper["DDP"]
    bare = dataclasses.replace(recipe, ema_every=0, text=recipes.Frozen(),
                               shape=dataclasses.replace(recipe.shape, text_dim=0))
    one, two = (estimate(each, Plan(8, "H100", 192), ASSUMED) for each in (recipe, bare))
    assert two.memory["EMA"] == two.memory["text encoder"] == 0 and two.peak < one.peak and two.step < one.step
