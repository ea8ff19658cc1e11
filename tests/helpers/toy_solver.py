"""A solver that trains within a second, with all the state that a real one has, in a Dora experiment."""
import os
import random
import typing as tp
from pathlib import Path

import flashy
import pytest
import torch
from dora.conf import DoraConfig
from dora.xp import XP
from omegaconf import OmegaConf

from magnet_plugin.solvers import preemption
from magnet_plugin.solvers.preemption import PreemptibleSolver

from ..conftest import compose

UPDATES, EPOCHS = 7, 3


class Numbers(torch.utils.data.Dataset):
    """Like AudioCraft's data sets: an item depends on index and epoch, and draws random numbers."""
    current_epoch = 0

    def __len__(self) -> int:
        return 2 * UPDATES + 3

    def __getitem__(self, index: int) -> torch.Tensor:
        return torch.tensor([index, self.current_epoch, random.random(), float(torch.rand(()))])


class Dropout(torch.nn.Module):
    """Draws from its own generator, as AudioCraft's condition dropout does."""

    def __init__(self) -> None:
        super().__init__()
        self.rng = torch.Generator().manual_seed(5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * (torch.rand(x.shape, generator=self.rng) < 0.7) if self.training else x


class Toy(PreemptibleSolver):
    """A few weights, an optimizer, a schedule, an EMA and a best state. Calls `at(stage, step)` in every step.

    Before that, it calls `seen(stage, epoch, step, loss)`.
    """
    best_metric_name = "loss"
    at: tp.Callable[[str, int], None] = staticmethod(lambda stage, step: None)
    seen: tp.Callable[[str, int, int, float], None] = staticmethod(lambda stage, epoch, step, loss: None)

    def build_model(self) -> None:
        self.model = torch.nn.Sequential(torch.nn.Linear(4, 8), Dropout(), torch.nn.Dropout(0.3), torch.nn.Linear(8, 1))
        self.register_ema("model")
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=0.05)
        self.lr_scheduler = torch.optim.lr_scheduler.ExponentialLR(self.optimizer, 0.97)
        self.register_stateful("model", "optimizer", "lr_scheduler")
        self.register_best_state("model")

    def build_dataloaders(self) -> None:
        pass

    def log_hyperparams(self, *arguments: tp.Any) -> None:      # before the first step
        self.at("start", 0)

    def show(self) -> None:
        pass

    def train(self) -> dict:
        self.dataloaders["train"].dataset.current_epoch = self.epoch
        return super().train()

    def run_step(self, idx: int, batch: torch.Tensor, metrics: dict) -> dict:
        loss = (self.model(batch) - batch.sum(-1, keepdim=True) / 10).square().mean()
        if self.is_training:
            loss.backward()
            flashy.distrib.sync_model(self.model)
            self.optimizer.step()
            self.optimizer.zero_grad()
            self.lr_scheduler.step()
        self.seen(self.current_stage, self.epoch, idx, float(loss.detach()))
        self.at(self.current_stage, idx)
        return {"loss": loss.detach(), "index": float(batch[:, 0].sum())}

    def evaluate(self) -> dict:
        return self.common_train_valid("evaluate")

    def generate(self) -> dict:
        for _ in self.log_progress("generate", range(3)):
            self.at("generate", 0)
        return {"draw": float(torch.rand(()))}


def config(workers: int, **settings: tp.Any) -> tp.Any:
    base = OmegaConf.to_container(compose("solver=magnet/debug"), resolve=True)
    base.update(device="cpu", dataset={"workers": workers})
    base["optim"].update(epochs=EPOCHS, updates_per_epoch=UPDATES,
                         ema={"use": True, "updates": 2, "decay": 0.9, "device": "cpu"})
    base["logging"]["log_tensorboard"] = False
    base["checkpoint"].update(settings)
    return OmegaConf.create(base)


def solve(folder: Path, workers: int, at: tp.Callable[[str, int], None] = Toy.at,
          seen: tp.Callable[[str, int, int, float], None] = Toy.seen, **settings: tp.Any) -> Toy:
    """Run a solver to its end, or until it exits. Like a new process, each call starts with other random states."""
    torch.manual_seed(1)
    cfg = config(workers, **settings)
    xp = XP(dora=DoraConfig(dir=folder), cfg=cfg, argv=[], delta=[])
    xp.folder.mkdir(parents=True, exist_ok=True)
    with xp.enter():
        loaders = {}
        for name, shuffle in (("train", True), ("valid", False), ("evaluate", False)):
            loaders[name] = torch.utils.data.DataLoader(Numbers(), batch_size=2, shuffle=shuffle, num_workers=workers)

        class Loaded(Toy):
            def build_dataloaders(self) -> None:
                self.dataloaders = loaders
                PreemptibleSolver.build_dataloaders(self)
        Loaded.at, Loaded.seen = staticmethod(at), staticmethod(seen)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(preemption.StandardSolver, "build_dataloaders", lambda self: None)
            solver = Loaded(cfg)
        random.seed(len(os.listdir(xp.folder)))       # a new process may draw other numbers
        solver.run()
    return solver


def everything(solver: Toy) -> dict:
    """The whole state of a solver, without times and the experiment."""
    state = solver.state_dict()
    for epoch in state["history"]:
        for metrics in epoch.values():
            metrics.pop("duration")
    return {key: state[key] for key in state if not key.startswith("xp")}


def same(one: tp.Any, two: tp.Any) -> bool:
    """Whether two nested states are equal, bit for bit."""
    if isinstance(one, torch.Tensor):
        return torch.equal(one, two)
    if isinstance(one, dict):
        return one.keys() == two.keys() and all(same(one[key], two[key]) for key in one)
    if isinstance(one, (list, tuple)):
        return len(one) == len(two) and all(map(same, one, two))
    return one == two


def once(stage: str, step: int, count: int, signum: int) -> tp.Callable[[str, int], None]:
    """Send a signal to this process when this step is reached for the `count`-th time."""
    seen = []

    def at(now: str, idx: int) -> None:
        if (now, idx) == (stage, step):
            seen.append(idx)
            if len(seen) == count:
                os.kill(os.getpid(), signum)
    return at
