"""Train the next bundled models one after another.

    python -m tools.zoo queue                   # works through all steps that are not done
    python -m tools.zoo queue --status          # prints them, with their signatures and losses
    python -m tools.zoo queue --until codec-finish -- num_threads=1 datasource.folk.out=DIR
    python -m tools.zoo queue --given codec-finish=tools/zoo_weights/codec-stft-16khz --given magnet-lr=1e-3

Every step is a `dora run`. A step that was interrupted resumes at its last checkpoint, and one that is done is skipped, so
the same command goes on after a restart of the machine. `--given` names the result of a step or search that is already
known, such as weights that were trained elsewhere; it is skipped, and so are steps that only it needs. Settings after `--`
are added to every run. Nothing is exported: `python -m tools.zoo KIND --from SIG` does that.
"""
from __future__ import annotations

import argparse
import subprocess
import sys
import typing as tp
from pathlib import Path

from magnet_plugin.environment import dora_run
from tools.run_history import Epoch, read_json


class Step(tp.NamedTuple):
    """One training.

    Attributes:
        name: how later steps refer to it.
        overrides: of `dora run`. `{NAME}` stands for `//sig/SIG` of an earlier step, or for the result of a search.
    """

    name: str
    overrides: tuple[str, ...]


class Search(tp.NamedTuple):
    """Short trainings that differ in one setting; the result is the value with the lowest validation cross entropy.

    Attributes:
        name: how later steps refer to its result.
        overrides: as of a step.
        key: the setting.
        values: of the setting.
    """

    name: str
    overrides: tuple[str, ...]
    key: str
    values: tuple[str, ...]


CODEC = ("solver=compression/stft_16khz",)
# float32, because an update in bfloat16 takes 1.5 times as long on CPUs without AMX
MODEL = ("model/lm/model_scale=mini", "dset=audio/folk_soundfonts", "compression_model_checkpoint={codec-finish}",
         "autocast=false", "optim.ema.decay=0.999")
SHORT = ("optim.epochs=1", "optim.updates_per_epoch=250")
RATES = ("5e-4", "1e-3", "2e-3")
QUEUE: tuple[tp.Union[Step, Search], ...] = (
    Step("codec", CODEC),
    Step("codec-finish", (*CODEC, "continue_from={codec}", "optim.lr=2e-4", "optim.epochs=8")),
    Search("magnet-lr", ("solver=magnet", *MODEL, *SHORT), "optim.lr", RATES),
    Step("magnet", ("solver=magnet", *MODEL, "optim.lr={magnet-lr}", "optim.epochs=60")),
    Search("musicgen-lr", ("solver=musicgen/tiny_16khz", *MODEL, *SHORT), "optim.lr", RATES),
    Step("musicgen", ("solver=musicgen/tiny_16khz", *MODEL, "optim.lr={musicgen-lr}", "optim.epochs=40")),
    Step("hybrid", ("solver=magnet/hybrid", *MODEL, "hybrid.parallel=0.1", "optim.lr={magnet-lr}", "optim.epochs=60")),
)


class Runs:
    """Dora's runs of the queue.

    Args:
        common: overrides that are added to every run.
    """

    def __init__(self, common: tp.Sequence[str] = ()) -> None:
        self.common = list(common)
        self.results: dict[str, str] = {}

    def arguments(self, overrides: tp.Sequence[str]) -> list[str]:
        """Fill in the results of earlier steps."""
        return [text.format_map(self.results) for text in overrides] + self.common

    def find(self, arguments: list[str]) -> tuple[str, int, list[Epoch]]:
        """Return a run's signature, its number of epochs, and the history of those that are done."""
        from magnet_plugin.train import main as entry
        xp = entry.get_xp(arguments)
        path = xp.folder / "history.json"
        return xp.sig, int(xp.cfg.optim.epochs), read_json(path) if path.exists() else []

    def train(self, arguments: list[str]) -> None:
        """Run or resume a training.

        Raises:
            subprocess.CalledProcessError: it failed.
        """
        subprocess.run(dora_run(arguments), check=True)

    def finish(self, name: str, overrides: tp.Sequence[str], train: bool) -> tp.Optional[tuple[str, list[Epoch]]]:
        """Train a run to its end.

        Args:
            name: for the report.
            overrides: see `Step`.
            train: whether to train; otherwise the run is only reported.
        Returns:
            Signature and history; None if the run is not done.
        """
        arguments = self.arguments(overrides)
        sig, epochs, history = self.find(arguments)
        if len(history) < epochs and train:
            print(f"{name}: epoch {len(history) + 1} of {epochs}, run {sig}", flush=True)
            self.train(arguments)
            sig, epochs, history = self.find(arguments)
        done = len(history) >= epochs
        last = history[-1]["valid"] if history else {}
        losses = {key: last[key] for key in ("ce", "spectral") if key in last}
        print(f"{name}: {'done' if done else f'{len(history)} of {epochs} epochs'}, run {sig}"
              + "".join(f", {key} {value:.4g}" for key, value in losses.items()), flush=True)
        return (sig, history) if done else None

    def work(self, item: tp.Union[Step, Search], train: bool = True) -> bool:
        """Do one item of the queue and keep its result; returns whether it is done."""
        if isinstance(item, Step):
            found = self.finish(item.name, item.overrides, train)
            if found:
                self.results[item.name] = f"//sig/{found[0]}"
            return found is not None
        losses: dict[str, float] = {}
        for value in item.values:
            found = self.finish(f"{item.name} {value}", (*item.overrides, f"{item.key}={value}"), train)
            if found is None:
                return False
            losses[value] = found[1][-1]["valid"]["ce"]
        self.results[item.name] = min(losses, key=lambda value: losses[value])
        return True


def needed(items: tp.Sequence[tp.Union[Step, Search]], given: tp.Collection[str]) -> list[tp.Union[Step, Search]]:
    """Return the items that are not given, without those that only given ones refer to."""
    found: list[tp.Union[Step, Search]] = []
    skipped = {*given}
    for item in reversed(items):
        users = [other.name for other in items if any(f"{{{item.name}}}" in text for text in other.overrides)]
        if item.name in skipped or (users and skipped.issuperset(users)):
            skipped.add(item.name)
        else:
            found.insert(0, item)
    return found


def main(arguments: tp.Sequence[str]) -> int:
    """Run the command line and return the exit status: 0 if all steps are done."""
    given = list(arguments)
    own, common = (given[:given.index("--")], given[given.index("--") + 1:]) if "--" in given else (given, [])
    parser = argparse.ArgumentParser(prog="python -m tools.zoo queue", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    names = [item.name for item in QUEUE]
    parser.add_argument("--status", action="store_true", help="print what is done, without training")
    parser.add_argument("--until", choices=names, default=names[-1], help="last step to do (default: all steps)")
    parser.add_argument("--given", action="append", default=[], metavar="NAME=RESULT",
                        help="a name of a model, or the value of a search; repeatable")
    args = parser.parse_args(own)
    given_results = dict(text.partition("=")[::2] for text in args.given)
    if unknown := given_results.keys() - {*names}:
        parser.error(f"--given {', '.join(sorted(unknown))}: there is no such step; the steps are {', '.join(names)}")
    runs = Runs(common)
    runs.results |= {name: str(Path(value).resolve()) if Path(value).exists() else value
                     for name, value in given_results.items()}
    for item in needed(QUEUE[:names.index(args.until) + 1], given_results):
        try:
            if not runs.work(item, train=not args.status):
                return 1
        except subprocess.CalledProcessError as error:
            print(f"error: {item.name} failed with exit status {error.returncode}; the same command resumes it",
                  file=sys.stderr)
            return 1
    return 0
