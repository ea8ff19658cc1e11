"""Real solvers with fixed batches, stages and masks, in one process or in several that form a process group."""
import contextlib
import os
import tempfile
import traceback
import typing as tp
from pathlib import Path

import flashy
import torch
from dora.conf import DoraConfig
from dora.xp import XP
from torch.distributed.tensor import DTensor

import magnet_plugin
from magnet_plugin.modules import hybrid_targets, masking, schedules
from magnet_plugin.solvers import builders, hybrid_magnet, magnet

from ..conftest import compose
from . import forked
from .small_models import conditions

magnet_plugin.register()
BATCH, K, T, STEPS = 4, 4, 30, 4
#: Valid frames of each clip of a batch. The clips of the first half are whole, those of the second mostly padding.
LENGTHS = (30, 30, 7, 4)
TINY = ("device=cpu", "num_threads=1", "transformer_lm.dim=16", "transformer_lm.num_heads=2", "transformer_lm.num_layers=2",
        "dataset.segment_duration=0.6", "logging.log_tensorboard=false", "deadlock.use=false", "optim.epochs=2",
        f"optim.updates_per_epoch={STEPS}", "optim.lr=1e-2", "optim.ema.updates=1", "optim.ema.decay=0.7",
        "optim.ema.device=cpu", "optim.max_norm=0.5", "classifier_free_guidance.training_dropout=0",
        "generate.lm.decoding_steps=[2,1,1,1]", "conditioners.description.words.word_dropout=0")
#: Further overrides for `magnet/hybrid`.
HYBRID = ("dset=audio/example", "dataset.num_workers=0", "dataset.batch_size=4", "schedule.lr_scheduler=null")


def run_ranks(world_size: int, function: tp.Callable, *arguments: tp.Any, backend: str = "gloo") -> list:
    """Call an importable function in `world_size` new processes and return its results by rank.

    The processes form a process group, unless there is only one or `backend` is empty.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with start_ranks(world_size, function, *arguments, backend=backend, folder=folder) as ranks:
            for rank in ranks:
                rank.join(240)
            errors = "\n".join(path.read_text() for path in sorted(folder.glob("error.*")))
            assert [rank.exitcode for rank in ranks] == [0] * world_size, errors
        return [torch.load(folder / f"result.{rank}", weights_only=False) for rank in range(world_size)]


@contextlib.contextmanager
def start_ranks(world_size: int, function: tp.Callable, *arguments: tp.Any, folder: Path, backend: str = "gloo"
                ) -> tp.Iterator[list]:
    """Start the processes of `run_ranks`, which write results and errors to a folder. Kills them at the end."""
    ranks = [forked.CONTEXT.Process(target=_run_rank, args=(rank, world_size, str(folder), function, arguments, backend))
             for rank in range(world_size)]
    for rank in ranks:
        rank.start()
    try:
        yield ranks
    finally:
        for rank in ranks:
            rank.kill()
            rank.join()


def _run_rank(rank: int, world_size: int, folder: str, function: tp.Callable, arguments: tuple, backend: str) -> None:
    torch.set_num_threads(1)
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(world_size))
    try:
        if backend == "nccl":
            torch.cuda.set_device(rank)
        if world_size > 1 and backend:
            torch.distributed.init_process_group(backend, f"file://{folder}/meeting", rank=rank, world_size=world_size)
        torch.save(function(*arguments), Path(folder) / f"result.{rank}")
    except BaseException:
        Path(folder, f"error.{rank}").write_text(f"rank {rank}\n{traceback.format_exc()}")
        raise


def own_rows() -> range:
    """Indices of this rank's clips within a batch."""
    rank, world_size = flashy.distrib.rank(), flashy.distrib.world_size()
    return range(rank * BATCH // world_size, (rank + 1) * BATCH // world_size)


def fixed_batch(step: int) -> tuple[torch.Tensor, torch.Tensor, list]:
    """This rank's part of a batch: tokens Long [B, K, T], whether they are valid, and texts."""
    tokens = torch.randint(512, (BATCH, K, T), generator=torch.Generator().manual_seed(step))
    valid = (torch.arange(T) < torch.tensor(LENGTHS)[:, None])[:, None].expand(-1, K, -1)
    # The longest texts of both halves have the same length, because padding of texts changes results.
    texts = ["a reel", "a slow waltz in D", None, "a jig on the flute"]
    rows = list(own_rows())
    return tokens[rows].masked_fill(~valid[rows], 512), valid[rows].clone(), [texts[row] for row in rows]


def fixed_stage(seed: int, epoch: tp.Optional[int], step: int, n_q: int, device: str) -> tuple[int, torch.Generator]:
    """Replacement for `stage_and_generator`: stages in turn, from the second on."""
    return (step + 1) % n_q, torch.Generator().manual_seed(step)


def fixed_mask(rates: torch.Tensor, length: int, span_len: int, generator: torch.Generator, valid: torch.Tensor
               ) -> torch.Tensor:
    """Replacement for `stage_mask`: the mask of a clip depends only on the step and the clip, not on the rank."""
    masks, device, valid = [], valid.device, valid.cpu()
    for own, row in enumerate(own_rows()):
        source = torch.Generator().manual_seed(100 * generator.initial_seed() + row)
        rate = schedules.mask_rate(torch.rand(1, generator=source))
        masks.append(masking.stage_mask(rate, length, span_len, source, valid[own:own + 1]))
    return torch.cat(masks).to(device)


def fixed_switch(count: int, length: int, share: tp.Any, generator: torch.Generator, parallel: float) -> torch.Tensor:
    """Replacement for `draw_switch`: the switch of a clip depends only on the step and the clip."""
    return torch.tensor([(7 * row + 5 * generator.initial_seed()) % length for row in own_rows()])


def fix_draws() -> None:
    """Let all solvers of this process use the replacements above."""
    for module, name, replacement in (
            (magnet, "stage_and_generator", fixed_stage), (magnet, "stage_mask", fixed_mask),
            (hybrid_targets, "stage_mask", fixed_mask), (hybrid_magnet, "draw_switch", fixed_switch)):
        assert hasattr(module, name)
        setattr(module, name, replacement)


def first(items: list) -> tp.Any:
    return items[0]


def make_solver(folder: Path, *overrides: str, base: str = "magnet/debug") -> tp.Any:
    """A tiny solver on fixed batches, in an experiment in `folder`. Enter `solver.xp` to run it."""
    torch.manual_seed(0)
    cfg = compose(f"solver={base}", *TINY, *overrides)

    class FixedBatches(builders.SOLVERS[cfg.solver]):                              # type: ignore[misc,name-defined]
        def build_dataloaders(self) -> None:
            self.dataloaders = {name: torch.utils.data.DataLoader([fixed_batch(step) for step in range(STEPS)],
                                                                  collate_fn=first) for name in ("train", "valid")}

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
        return FixedBatches(cfg)


def train(folder: Path, *overrides: str, base: str = "magnet/debug") -> dict:
    """Run a few updates. Return this rank's state, with whole tensors, and what the updates reported."""
    fix_draws()
    solver = make_solver(folder, *overrides, base=base)
    heads: list[list[float]] = []
    step = solver.optimizer.step

    def recorded(*args: tp.Any, **kwargs: tp.Any) -> tp.Any:
        heads.append([float(whole(head.weight.grad).abs().sum()) for head in solver.model.linears])
        return step(*args, **kwargs)
    solver.optimizer.step = recorded
    solver._current_stage = "train"
    solver.model.train()
    metrics, counts = [], []
    for number in range(STEPS):
        batch = fixed_batch(number)
        metrics.append({name: float(value) for name, value in solver.run_step(number, batch, {}).items()})
        counts.append(int(fixed_mask(torch.zeros(len(batch[0])), T, 3, fixed_stage(0, 1, number, K, "cpu")[1],
                                     batch[1][:, 0]).sum()))
        solver.ema.step()
    names = {id(value): name for name, value in solver.model.named_parameters()}
    moments = {f"{names[id(value)]}.{moment}": whole(tensor) for value, state in solver.optimizer.state.items()
               for moment, tensor in state.items()}
    ema = {name: value.clone() for name, value in solver.ema.state["model"].items()}
    return {"model": weights(solver.model), "optimizer": moments, "ema": ema,
            "metrics": metrics, "heads": heads, "masked": counts}


def whole(tensor: torch.Tensor) -> torch.Tensor:
    full = tensor.detach()
    return (full.full_tensor() if isinstance(full, DTensor) else full).cpu().clone()


def weights(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: whole(value) for name, value in model.state_dict().items()}


def max_difference(one: dict, two: dict) -> float:
    """The largest difference between tensors of the same names."""
    assert one.keys() == two.keys()
    return max(float((one[name] - two[name]).abs().max()) for name in one)


def relative_difference(one: dict, two: dict) -> float:
    """The root mean square of the difference between tensors of the same names, compared with that of `one`."""
    assert one.keys() == two.keys()
    difference = sum(float((one[name] - two[name]).square().sum()) for name in one)
    return (difference / sum(float(value.square().sum()) for value in one.values())) ** 0.5
