"""Real solvers in several real processes that form a gloo group, their stages, masks and clips given row by row."""
import multiprocessing
import os
import tempfile
import traceback
import typing as tp
from pathlib import Path

import torch

import magnet_plugin

magnet_plugin.register()
from dora.conf import DoraConfig  # noqa: E402
from dora.xp import XP  # noqa: E402

from magnet_plugin.distributed import fsdp as sharding  # noqa: E402
from magnet_plugin.modules import (  # noqa: E402
    hybrid_targets,  # noqa: E402
    masking,
    schedules,
)
from magnet_plugin.solvers import hybrid_magnet as solver_hybrid  # noqa: E402
from magnet_plugin.solvers import magnet as solver  # noqa: E402

from ..conftest import compose  # noqa: E402
from .small_models import conditions  # noqa: E402

BATCH, K, T, STEPS = 4, 4, 30, 4
#: Valid frames of each clip of a batch: the clips of the first half are whole, those of the second mostly padding.
LENGTHS = (30, 30, 7, 4)
TINY = ("device=cpu", "num_threads=1", "transformer_lm.dim=16", "transformer_lm.num_heads=2", "transformer_lm.num_layers=2",
        "dataset.segment_duration=0.6", "logging.log_tensorboard=false", "deadlock.use=false", "optim.epochs=2",
        f"optim.updates_per_epoch={STEPS}", "optim.lr=1e-2", "optim.ema.updates=1", "optim.ema.decay=0.7",
        "optim.ema.device=cpu", "optim.max_norm=0.5", "classifier_free_guidance.training_dropout=0",
        "generate.lm.decoding_steps=[2,1,1,1]", "conditioners.description.words.word_dropout=0")


def together(world: int, function: tp.Callable, *arguments: tp.Any, backend: str = "gloo") -> list:
    """What `function(*arguments)` returns on each of `world` ranks; it has to be importable. They form a group, but a
    single one, or where there is no `backend`."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    with tempfile.TemporaryDirectory() as name:
        ranks = [context.Process(target=_rank, args=(rank, world, name, function, arguments, backend), daemon=True)
                 for rank in range(world)]
        for rank in ranks:
            rank.start()
        for rank in ranks:
            rank.join(240)
        late = [rank for rank in ranks if rank.is_alive()]
        for rank in late:
            rank.kill()
        wrong = [path.read_text() for path in sorted(Path(name).glob("*.txt"))]
        assert not late and not any(rank.exitcode for rank in ranks), "\n".join(wrong) or f"{late} do not end"
        return [torch.load(Path(name) / f"{rank}.pt", weights_only=False) for rank in range(world)]


def _rank(rank: int, world: int, folder: str, function: tp.Callable, arguments: tuple, backend: str) -> None:
    torch.set_num_threads(1)
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(world))
    try:
        if backend == "nccl":
            torch.cuda.set_device(rank)
        if world > 1 and backend:
            torch.distributed.init_process_group(backend, f"file://{folder}/meeting", rank=rank, world_size=world)
        torch.save(function(*arguments), Path(folder) / f"{rank}.pt")
    except BaseException:
        Path(folder, f"{rank}.txt").write_text(f"rank {rank}\n{traceback.format_exc()}")
        raise


def place() -> tuple[int, int]:
    """Rank and number of ranks."""
    return solver.flashy.distrib.rank(), solver.flashy.distrib.world_size()


def rows() -> range:
    """Which clips of a batch are this rank's."""
    rank, world = place()
    return range(rank * BATCH // world, (rank + 1) * BATCH // world)


def batch(step: int) -> tuple[torch.Tensor, torch.Tensor, list]:
    """This rank's part of a batch: tokens Long [B, K, T], their validity, and texts."""
    tokens = torch.randint(512, (BATCH, K, T), generator=torch.Generator().manual_seed(step))
    valid = (torch.arange(T) < torch.tensor(LENGTHS)[:, None])[:, None].expand(-1, K, -1)
    # The longest are as long in both halves: AudioCraft's padding of texts changes numbers.
    texts = ["a reel", "a slow waltz in D", None, "a jig on the flute"]
    mine = list(rows())
    return tokens[mine].masked_fill(~valid[mine], 512), valid[mine].clone(), [texts[row] for row in mine]


def given_draws(seed: int, epoch: tp.Optional[int], step: int, n_q: int, device: str) -> tuple[int, torch.Generator]:
    """The stages in turn from the second on; what is drawn for a clip depends on the step and the clip alone."""
    return (step + 1) % n_q, torch.Generator().manual_seed(step)


def given_mask(rates: torch.Tensor, length: int, span_len: int, generator: torch.Generator, valid: torch.Tensor
               ) -> torch.Tensor:
    found, device, valid = [], valid.device, valid.cpu()
    for own, row in enumerate(rows()):
        source = torch.Generator().manual_seed(100 * generator.initial_seed() + row)
        rate = schedules.mask_rate(torch.rand(1, generator=source))
        found.append(masking.stage_mask(rate, length, span_len, source, valid[own:own + 1]))
    return torch.cat(found).to(device)


def given_switch(count: int, length: int, share: tp.Any, generator: torch.Generator, parallel: float) -> torch.Tensor:
    return torch.tensor([(7 * row + 5 * generator.initial_seed()) % length for row in rows()])


def give() -> None:
    """Let the solvers of this process ask the above."""
    for module, name, ours in ((solver, "draws", given_draws), (solver_hybrid, "draws", given_draws),
                               (solver, "stage_mask", given_mask), (hybrid_targets, "stage_mask", given_mask),
                               (solver_hybrid, "draw_switch", given_switch)):
        setattr(module, name, ours)


def first(items: list) -> tp.Any:
    return items[0]


def make(folder: Path, *overrides: str, base: str = "magnet/debug") -> tp.Any:
    """A solver on given batches, in an experiment in `folder`. Enter `solver.xp` to use it."""
    torch.manual_seed(0)
    cfg = compose(f"solver={base}", *TINY, *overrides)
    klass = solver.SOLVERS[cfg.solver]

    class Given(klass):                              # type: ignore[misc,valid-type]
        def build_dataloaders(self) -> None:
            self.dataloaders = {name: torch.utils.data.DataLoader([batch(step) for step in range(STEPS)], collate_fn=first)
                                for name in ("train", "valid")}

        def _prepare_tokens_and_attributes(self, batch: tuple) -> tuple:
            tokens, valid, texts = batch
            return self.model.embed_conditions(conditions(*texts)), tokens.to(self.device), valid.to(self.device)

        def train(self) -> dict:
            return self.common_train_valid("train")

        def evaluate(self) -> dict:
            return {}

        def generate(self) -> dict:
            return {}
    xp = XP(dora=DoraConfig(dir=folder), cfg=cfg, argv=[], delta=[])
    xp.folder.mkdir(parents=True, exist_ok=True)
    with xp.enter():
        return Given(cfg)


def train(folder: Path, *overrides: str, base: str = "magnet/debug") -> dict:
    """A few updates; what this rank has afterwards, its tensors whole."""
    give()
    made = make(folder, *overrides, base=base)
    heads: list[list[float]] = []
    step = made.optimizer.step

    def watched(*args: tp.Any, **kwargs: tp.Any) -> tp.Any:
        heads.append([float(whole(head.weight.grad).abs().sum()) for head in made.model.linears])
        return step(*args, **kwargs)
    made.optimizer.step = watched
    made._current_stage = "train"
    made.model.train()
    metrics, counts = [], []
    for number in range(STEPS):
        given = batch(number)
        metrics.append({name: float(value) for name, value in made.run_step(number, given, {}).items()})
        counts.append(int(given_mask(torch.zeros(len(given[0])), T, 3, given_draws(0, 1, number, K, "cpu")[1],
                                     given[1][:, 0]).sum()))
        made.ema.step()
    names = {id(value): name for name, value in made.model.named_parameters()}
    moments = {f"{names[id(value)]}.{moment}": whole(tensor) for value, state in made.optimizer.state.items()
               for moment, tensor in state.items()}
    ema = {name: value.clone() for name, value in made.ema.state["model"].items()}
    return {"model": weights(made.model), "optimizer": moments, "ema": ema,
            "metrics": metrics, "heads": heads, "masked": counts}


def whole(tensor: torch.Tensor) -> torch.Tensor:
    full = tensor.detach()
    return (full.full_tensor() if isinstance(full, sharding.DTensor) else full).cpu().clone()


def weights(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: whole(value) for name, value in model.state_dict().items()}


def apart(one: dict, two: dict) -> float:
    """The largest difference between tensors of the same names."""
    assert one.keys() == two.keys()
    return max(float((one[name] - two[name]).abs().max()) for name in one)
