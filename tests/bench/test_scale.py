"""`magnet bench scale`: formulas against the real model, invariants of memory and network, the tables of docs/scale.md."""
import dataclasses
import json
import subprocess
import sys
import typing as tp
from pathlib import Path

import pytest
import torch

import magnet_plugin
from magnet_plugin.bench.scale import checks, costs, page, rates, recipes
from magnet_plugin.bench.scale import estimate as estimates
from magnet_plugin.bench.scale.costs import Step
from magnet_plugin.bench.scale.estimate import Plan, estimate, memory
from magnet_plugin.bench.scale.hardware import GPUS, Assumptions, all_reduce, gather
from magnet_plugin.bench.scale.meter import Meter
from magnet_plugin.cli.main import main

from ..conftest import compose

ROOT = Path(__file__).parents[2]
ASSUMED = Assumptions()
TOLERANCE = {"FLOPs forward": 0.001, "FLOPs backward": 0.02, "kept for the backward pass, bytes": 0.01,
             "most at a time with gradients, bytes": 0.02, "moved by other operations, bytes": 0.1, "kernels": 0.1}
COUNTS = (1, 2, 4, 8, 16, 32, 64)


@pytest.fixture(scope="module")
def paper() -> dict[str, recipes.Recipe]:
    """The small music model, without and with FSDP."""
    return {mode: page.recipe_of(page.PAPER[0], "small", mode, ASSUMED.text_tokens) for mode in page.MODES}


@pytest.mark.parametrize("case", checks.CASES, ids=lambda case: f"{case.name}-{case.precision}-{case.stage}")
def test_formulas_are_what_torch_counts(case: checks.Case) -> None:
    magnet_plugin.register()
    for name, (computed, counted) in checks.count(case).items():
        assert computed == pytest.approx(counted, rel=TOLERANCE[name]), f"{name}: {computed:.0f}, counted {counted}"


def test_the_meter_counts_what_is_made_inside() -> None:
    before = torch.ones(1000)
    with Meter() as meter:
        one = before.t() + 1                        # a view of what was there, and 4000 bytes
        two = one[:10]
        assert (meter.live, meter.peak, meter.kernels, meter.moved) == (4000, 4000, 1, 8000)
        one.mul_(2)
        assert (meter.live, meter.kernels, meter.moved) == (4000, 2, 8000 + 8000)
        _ = (one + 1).sum()
        del one, two
    assert meter.live == 4 and meter.peak == 8004, "the sum is still there"


def test_parameters_are_those_of_the_model(paper: dict[str, recipes.Recipe]) -> None:
    from audiocraft.models import builders
    overrides = recipes.settings("magnet/debug", None, None, False)
    built = builders.get_lm_model(compose("solver=magnet/debug", "device=cpu"))
    recipe = recipes.read(overrides, 64)
    assert recipe.parameters == sum(p.numel() for p in built.parameters())
    assert recipe.tensors == len(list(built.parameters()))
    assert recipe.shape.frames == built.segment_frames and recipe.precision == "bfloat16"
    small, shape = paper["DDP"], paper["DDP"].shape
    layer = 16 * shape.dim ** 2 + 3 * 2 * shape.dim
    around = shape.codebooks * (2 * shape.card + 1) * shape.dim + 2 * shape.dim + (768 + 1) * shape.dim
    assert small.parameters == 24 * layer + around and (shape.dim, shape.layers, shape.frames) == (1024, 24, 1500)
    assert [len(unit) for unit in small.units[1:]] == [12] * 24 + [2], "FSDP wraps layers and the conditioner"
    assert small.text.held == 4 * 109_628_544, "T5-base's encoder"
    assert (small.optimizer, small.batch, small.precision, small.ema_every) == ("dadam", 192, "float16", 10)
    assert (paper["FSDP"].fsdp, paper["FSDP"].precision, paper["FSDP"].optimizer) == ("shard_grad_op", "bfloat16", "adamw")


@pytest.mark.parametrize("optimizer", ["adamw", "dadam"])
def test_states_are_those_of_a_real_solver(optimizer: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from dora.conf import DoraConfig
    from dora.xp import XP

    from magnet_plugin.solvers.magnet import MagnetSolver
    more = [f"optim.optimizer={optimizer}", "optim.lr=1"]
    cfg = compose("solver=magnet/debug", "device=cpu", "logging.log_tensorboard=false", *more)
    monkeypatch.setattr(MagnetSolver, "build_dataloaders",
                        lambda self: setattr(self, "dataloaders", {"train": [], "valid": []}))
    xp = XP(dora=DoraConfig(dir=tmp_path), cfg=cfg, argv=[], delta=[])
    xp.folder.mkdir(parents=True)
    with xp.enter():
        solver = MagnetSolver(cfg)
    for parameter in solver.model.parameters():
        parameter.grad = torch.randn_like(parameter)
    solver.optimizer.step()

    def size(tensors: tp.Iterable[tp.Any]) -> int:
        return sum(x.numel() * x.element_size() for x in tensors if isinstance(x, torch.Tensor) and x.dim())

    recipe = recipes.read(recipes.settings("magnet/debug", None, None, False, more), 64)
    found, _ = memory(recipe, 4, 1, GPUS["H100"], ASSUMED)
    assert found["weights"] == size(solver.model.parameters())
    assert found["gradients"] == size(p.grad for p in solver.model.parameters())
    assert found["optimiser"] == size(x for state in solver.optimizer.state.values() for x in state.values())
    assert found["EMA"] == size(x for state in solver.ema.state.values() for x in state.values())
    codec = solver.compression_model
    more_weights = found["codec"] - size([*codec.parameters(), *codec.buffers()])
    assert 0 <= more_weights < size(codec.parameters()), "those that weight_norm computes"


def test_what_optimisers_move() -> None:
    from audiocraft.optim.dadam import DAdaptAdam
    makers: dict[str, tp.Callable] = {"adamw": lambda ps: torch.optim.AdamW(ps, foreach=True),
                                      "adam": lambda ps: torch.optim.Adam(ps, foreach=True),
                                      "dadam": lambda ps: DAdaptAdam(ps, lr=1, weight_decay=0.1)}
    assert set(makers) == set(estimates.OPTIMIZERS)
    for name, maker in makers.items():
        parameters = [torch.nn.Parameter(torch.randn(100, 100)) for _ in range(5)]
        optimizer, meter = maker(parameters), Meter()
        for _ in range(2):
            for parameter in parameters:
                parameter.grad = torch.randn_like(parameter)
            optimizer.step()
        with meter:
            optimizer.step()
        expected, count = estimates.OPTIMIZERS[name], sum(p.numel() for p in parameters)
        assert meter.moved == pytest.approx(expected.moved * count, rel=0.01), name
        assert meter.peak <= max(expected.work, 4 / len(parameters)) * 4 * count + 1000, name
        assert expected.kernels == (meter.kernels // len(parameters) if name == "dadam" else 0), name
        with Meter() as meter:
            torch.nn.utils.clip_grad_norm_(parameters, 1.0, foreach=True)
        assert meter.moved == pytest.approx(estimates.CLIP * count, rel=0.01)


RANK = """
import os, sys, types
import torch
from omegaconf import OmegaConf
import magnet_plugin
magnet_plugin.register()
from magnet_plugin.bench import peers
from magnet_plugin.models.lm_magnet import MagnetLMModel
from magnet_plugin.solvers.magnet import MagnetSolver
from magnet_plugin.distributed.reduction import touch_all
sys.stdout.flush()
rank = 0 if os.fork() else 1
torch.distributed.init_process_group("gloo", init_method="file://" + sys.argv[1], rank=rank, world_size=2)
model = peers.build(MagnetLMModel, peers.Size(16, 2, 2), 20, torch.device("cpu"), torch.float32, seed=rank)
solver = object.__new__(MagnetSolver)
solver.model, solver.deadlock_detect = model.train(), types.SimpleNamespace(update=lambda name: None)
solver.cfg = OmegaConf.create({"fsdp": {"use": False}, "optim": {"eager_sync": True, "accumulate": 1}})
sent, real = [], torch.distributed.all_reduce
def counting(tensor, *args, **kwargs):
    sent.append((tensor.numel() * tensor.element_size(), tensor.is_floating_point(), tensor.data_ptr()))
    return real(tensor, *args, **kwargs)
torch.distributed.all_reduce = counting
conditions = model.condition_provider(model.condition_provider.tokenize(peers.captions(2)))
loss = model.stage_logits(torch.randint(2048, (2, 4, 20)), conditions, 1).square().mean()
solver._backward(touch_all(loss, model.linears.parameters()))
pointers = {pointer for size, floating, pointer in sent if floating}
shared = sum(p.grad.data_ptr() in pointers for p in model.parameters())
total = float(sum(p.grad.double().sum() for p in model.parameters()))
told = [rank, sum(size for size, floating, _ in sent if floating), sum(floating for _, floating, _ in sent),
        sum(size for size, floating, _ in sent if not floating), sum(p.numel() for p in model.parameters()),
        len(list(model.parameters())), shared, total]
with open(sys.argv[1] + str(rank), "w") as file:          # gloo writes to the terminal, in pieces
    print(*told, file=file)
torch.distributed.destroy_process_group()
if rank == 0:
    os.wait()
os._exit(0)
"""


def test_ranks_send_what_is_computed(tmp_path: Path) -> None:
    """Two ranks on gloo, the solver's own backward pass: every gradient is reduced once, in float32 and in its place."""
    out = subprocess.run([sys.executable, "-c", RANK, str(tmp_path / "store")], capture_output=True, text=True, timeout=200)
    told = [tmp_path / f"store{rank}" for rank in (0, 1)]
    assert all(path.exists() for path in told), (out.returncode, out.stdout[-2000:], out.stderr[-2000:])
    lines = [path.read_text().split() for path in told]
    assert lines[0][1:] == lines[1][1:], "ranks agree, in the gradients too"
    reduced, collectives, checked, parameters, tensors, shared = map(int, lines[0][1:7])
    recipe = dataclasses.replace(recipes.read(recipes.settings("magnet/debug", None, None, False), 64),
                                 units=((parameters,),))
    assert reduced == 4 * recipe.parameters and collectives == tensors and checked <= 16
    assert shared == tensors, "a reduced copy beside each gradient would double their memory"
    traffic = estimates._network(recipe, 2, GPUS["H100"], ASSUMED, 1.0, 1.0)[0]
    assert traffic.bytes == all_reduce(reduced, 2).bytes == 2 * (2 - 1) / 2 * reduced


@pytest.mark.parametrize("ranks", COUNTS[1:])
def test_what_crosses_which_link(ranks: int) -> None:
    """The parts inside and outside of nodes add up to the ring's; what leaves a node leaves it once."""
    size = 64e9
    whole, half = all_reduce(size, ranks), gather(size, ranks)
    assert whole.bytes == pytest.approx(2 * (ranks - 1) / ranks * size) and half.bytes == pytest.approx(whole.bytes / 2)
    nodes = max(1, ranks // 8)
    assert 8 * half.outside == pytest.approx((nodes - 1) / nodes * size)
    assert whole.latency > all_reduce(size, ranks // 2).latency and whole.latency < 1e-3


def test_more_gpus_never_need_more_memory_each(paper: dict[str, recipes.Recipe]) -> None:
    for mode, recipe in paper.items():
        found = [estimate(recipe, Plan(count, "H100", 192), ASSUMED) for count in COUNTS]
        assert all(one.peak >= two.peak for one, two in zip(found, found[1:])), mode
        assert [one.most for one in found] == sorted(one.most for one in found), mode
        assert all(1 / one.step < 1 / two.step for one, two in zip(found, found[1:])), mode
        states = [sum(one.memory[name] for name in ("weights", "optimiser", "EMA", "gradients")) for one in found]
        for count, bytes_of in zip(COUNTS, states):
            shares = count if mode == "FSDP" else 1
            padding = 4 * (1 + 3 + 1 + 1) * len(recipe.units) if mode == "FSDP" else 0
            assert 0 <= bytes_of - states[0] / shares <= padding, (mode, count)


def test_fsdps_traffic_and_strategies(paper: dict[str, recipes.Recipe]) -> None:
    """Two bytes gathered and four reduced per parameter; `full_shard` gathers twice and holds less."""
    recipe = paper["FSDP"]
    whole = dataclasses.replace(recipe, fsdp="full_shard")
    one, two = (estimate(each, Plan(64, "H100", 192), ASSUMED) for each in (recipe, whole))
    assert one.traffic.bytes == pytest.approx(63 / 64 * (2 + 4) * recipe.parameters)
    assert two.traffic.bytes == pytest.approx(63 / 64 * (2 + 2 + 4) * recipe.parameters)
    assert two.peak < one.peak and two.network > one.network


def test_what_bounds_a_step(paper: dict[str, recipes.Recipe], monkeypatch: pytest.MonkeyPatch) -> None:
    recipe, plan = paper["DDP"], Plan(32, "H100", 192)
    base = estimate(recipe, plan, ASSUMED)
    slower = estimate(recipe, plan, dataclasses.replace(ASSUMED, efficiency=0.1))
    assert base.share == pytest.approx(slower.share * slower.step / base.step) and 0.1 < base.share < ASSUMED.efficiency
    assert slower.bound == "compute" and slower.seconds["memory"] == base.seconds["memory"]
    later = estimate(recipe, plan, dataclasses.replace(ASSUMED, launch=1e-3))
    assert later.bound == "host" and later.step == pytest.approx(base.host * 1e-3 / ASSUMED.launch)
    monkeypatch.setitem(GPUS, "H100", dataclasses.replace(GPUS["H100"], outside=1e9))
    thin = estimate(recipe, plan, ASSUMED)
    assert thin.bound == "network" and thin.step > base.step and base.network < thin.network
    lazy = estimate(dataclasses.replace(recipe, eager=False), plan, ASSUMED)
    assert lazy.seconds["network"] == lazy.network > thin.seconds["network"], "without eager_sync nothing is hidden"


def test_the_largest_batch_is_the_largest(paper: dict[str, recipes.Recipe]) -> None:
    for gpu in GPUS:
        most = estimate(paper["DDP"], Plan(1, gpu, 1), ASSUMED).most
        assert estimate(paper["DDP"], Plan(1, gpu, most), ASSUMED).fits
        more = estimate(paper["DDP"], Plan(1, gpu, most + most // 4), ASSUMED)
        assert not estimate(paper["DDP"], Plan(1, gpu, most + 1), ASSUMED).fits and not more.fits
        for parts, fits in ((more.accumulate, True), (more.accumulate - 1, False)):
            in_parts = dataclasses.replace(paper["DDP"], accumulate=parts)
            assert estimate(in_parts, Plan(1, gpu, most + most // 4), ASSUMED).fits == fits
    assert estimates.largest(lambda number: False) == 0 and estimates.largest(lambda number: number < 7) == 6


def test_kernels_of_the_band() -> None:
    shape = checks.shape_of(checks.TINY, 1500)
    pairs = {kernel: costs.pairs(shape, Step(1, 8, 1, kernel)) for kernel in ("flash", "blocked", "dense")}
    assert 1500 * 11 < pairs["blocked"] < pairs["flash"] < pairs["dense"] == 1500 ** 2
    assert costs.pairs(shape, Step(1, 8, 0, "flash")) == 1500 ** 2
    wide = dataclasses.replace(shape, context=-1)
    assert costs.pairs(wide, Step(1, 8, 1, "blocked")) == 1500 ** 2 and costs.blocks(wide, Step(1, 8, 1, "blocked")) is None
    apart = costs.blocks(shape, Step(1, 8, 1, "blocked", apart=True))
    assert apart is not None and apart.keys % 8 == 0 and apart.keys >= apart.queries + 10


def record(seconds: float, **machine: float) -> dict[str, tp.Any]:
    case: dict[str, tp.Any] = {"case": {"size": "tiny", "batch": 8, "length": 248, "rounds": 1},
                               "update": {"plugin": {"seconds": [seconds], "peak_mib": 100.0},
                                          "plugin, bfloat16": {"error": "none"}}}
    if machine:
        case["machine"] = {name: [value] for name, value in machine.items()}
    made = {"measured_on": "NVIDIA A100-SXM4-80GB", "cores": 2, "threads": 2, "torch": "2"}
    return {"kind": "train", "command": "magnet bench train", "date": "2026-01-01", "made_with": made, "cases": [case]}


def test_measured_updates_are_picked_up(tmp_path: Path) -> None:
    fast = {"float32": 2e9, "bfloat16": 1e30, "moved": 1e30}
    (tmp_path / "train-cpu.json").write_text(json.dumps(record(1.0)))
    (tmp_path / "train-nvidia.json").write_text(json.dumps(record(3.0, **fast)))
    text = page.measured(tmp_path)
    assert "`train-cpu.json` holds no rates of its machine" in text
    (row,) = rates.rows(record(3.0, **fast), cuda=True)
    shape = checks.shape_of(checks.TINY, 248)
    products = sum(costs.flops(shape, Step(8, checks.WORDS, 1, "blocked", apart=True)))
    assert row.computed == pytest.approx(products / 2e9) and row.measured == 3.0 and row.measured_mib == 100.0
    assert row.share == pytest.approx(products / 3.0 / GPUS["A100-80"].float32)
    assert f"| plugin | 3 | {row.computed:.3g} | {row.computed / 3:.2f} | 100 |" in text
    (row,) = rates.rows(record(3.0, **fast), cuda=False)
    assert row.measured_mib is None and row.share is None, "a processor's memory is not the device's"
    slow, = rates.rows(record(3.0, **{**fast, "moved": 1e9}), cuda=False)
    assert slow.computed > row.computed + 84 * rates.parameters_of("tiny") / 1e9


def test_rates_of_this_machine() -> None:
    found = rates.measure(checks.peers.Size(32, 1, 2), 1, 20, torch.device("cpu"), rounds=2)
    assert set(found) == {"float32", "bfloat16", "moved"}
    assert all(len(values) == 2 and min(values) > 1e5 for values in found.values())


def test_the_tables_of_the_document_are_up_to_date(tmp_path: Path) -> None:
    """Written again, they are the same: `magnet bench scale --doc docs/scale.md`."""
    between = (ROOT / "docs/scale.md").read_text().split(page.BEGIN)[1].split(page.END)[0]
    copy = tmp_path / "scale.md"
    copy.write_text(f"before\n{page.BEGIN}\nold\n{page.END}\nafter\n")
    page.write(copy, ROOT / "bench", ASSUMED)
    assert copy.read_text() == f"before\n{page.BEGIN}{between}{page.END}\nafter\n"
    assert copy.with_suffix(".png").stat().st_size > 20_000
    copy.write_text("no marks")
    with pytest.raises(ValueError, match="--doc"):
        page.write(copy, ROOT / "bench", ASSUMED)


def test_a_plan_on_the_command_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "scale", "--solver", "magnet/audio_magnet_16khz", "--scale", "tiny", "--gpus", "4",
                 "--batch", "64", "--duration", "5", "--gpu", "V100-32", "--mode", "ddp",
                 "--set", "optim.accumulate=2"]) == 0
    out = capsys.readouterr().out
    assert "| 4 | DDP | 16 |" in out and "Computed, not measured" in out and "FSDP" not in out


def test_a_mode_that_does_not_go_with_the_recipe_is_told_beside_the_other(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "scale", "--gpus", "8"]) == 0
    out = capsys.readouterr().out
    assert "| 8 | DDP |" in out and "| FSDP |" not in out and "No rows for FSDP" in out and "optim.optimizer=adamw" in out


@pytest.mark.parametrize("arguments,named", [
    (["--gpu", "K80"], "--gpu K80: choose one of H200"), (["--gpus", "8", "--batch", "100"], "set it to a multiple of 8"),
    (["--gpus", "12"], "--gpus 12"), (["--gpu", "V100-32", "--precision", "bfloat16"], "set --precision float16"),
    (["--precision", "int8"], "--precision int8"), (["--efficiency", "2"], "--efficiency 2"),
    (["--solver", "magnet/hybrid"], "--solver"), (["--scale", "huge"], "model_scale=huge"),
    (["--set", "optim.optimizer=sgd"], "optim.optimizer=sgd"), (["--set", "transformer_lm.dropout=0.1"], "dropout=0.1"),
    (["--set", "optim.accumulate=99"], "optim.accumulate=99"), (["--set", "compression_model_checkpoint=x"], "checkpoint=x"),
    (["--set", "transformer_lm.checkpointing=xformers_mm"], "checkpointing=xformers_mm"),
    (["--mode", "fsdp"], "set optim.optimizer=adamw"),
    (["--mode", "fsdp", "--solver", "magnet/audio_magnet_16khz", "--set", "optim.accumulate=2"], "set optim.accumulate=1")])
def test_what_cannot_be_computed_is_told_in_one_line(arguments: list[str], named: str,
                                                     capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "scale", *arguments]) == 2
    told = [line for line in capsys.readouterr().err.splitlines() if "error" in line]
    assert len(told) == 1 and named in told[0]


def test_the_command_is_light_until_it_runs() -> None:
    script = "import sys\nfrom magnet_plugin.bench.scale import command, hardware\nprint('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
