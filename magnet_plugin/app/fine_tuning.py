"""The training run of `magnet demo`: its settings, the `dora run` command, and its results."""
from __future__ import annotations

import json
import os
import shlex
import subprocess
import typing as tp
from collections.abc import Sequence
from pathlib import Path

from .. import environment

if tp.TYPE_CHECKING:
    from dora import XP

CLIPS, SAMPLE_RATE, SECONDS = 200, 16000, 5.0      # size of the data set, Hz, and length of each clip
#: About a minute of training on two cores. The learning rate is low and the warm-up short because the run starts from a
#: trained model. Validation needs 32 clips, four batches, because each batch evaluates one codebook. AudioCraft's last epoch
#: always evaluates and generates, here only briefly.
TRAINING = (
    "optim.epochs=4", "optim.updates_per_epoch=15", "optim.lr=2e-4", "schedule.cosine.warmup=10",
    "logging.log_updates=5", "dataset.num_workers=0", "dataset.valid.num_samples=32",
    "dataset.evaluate.num_samples=32", "dataset.generate.num_samples=2", "dataset.generate.batch_size=2",
)
#: Settings that do not influence the trained model.
UNRELATED = ("dataset.evaluate.", "dataset.generate.")


class Epoch(tp.NamedTuple):
    """Number of an epoch from 1, its losses in nats per masked token, and its duration in seconds."""
    number: int
    train: float
    valid: float
    seconds: float


def quote(value: str | Path) -> str:
    """Quote a value so that Hydra reads it literally, whatever characters it contains.

    >>> print(quote("/home/me/my runs"))
    '/home/me/my runs'
    """
    return "'" + str(value).replace("'", "\\'") + "'"


def run_settings(out: Path, model: str, overrides: Sequence[str]) -> list[str]:
    """Return the arguments of `dora run`.

    Args:
        out: folder of the demo; data set and token cache are written there.
        model: the model to start from.
        overrides: further `key=value` settings, which take precedence.
    """
    if os.path.exists(model):
        model = os.path.abspath(model)              # the run has another working directory
    return ["solver=magnet", f"continue_from={quote(model)}", f"datasource.folk.out={quote(out / 'folk')}",
            f"cache.tokens={quote(out / 'tokens')}", f"datasource.folk.clips={CLIPS}",
            f"datasource.folk.duration={SECONDS:g}", *TRAINING, *overrides]


def train(runs: Path, settings: Sequence[str]) -> None:
    """Execute `dora run` and show its output. An interrupted run is resumed, and a finished one is not repeated.

    Args:
        runs: Dora's folder.
        settings: arguments of `dora run`.
    Raises:
        ValueError: the run failed.
    """
    command = environment.dora_run(settings)
    print(f"   AUDIOCRAFT_DORA_DIR={shlex.quote(str(runs))} {shlex.join(['dora', *command[3:]])}", flush=True)
    # The run has another working directory, so it gets the absolute path of this package.
    path = os.pathsep.join([str(environment.PACKAGE.parent), *filter(None, [os.environ.get("PYTHONPATH")])])
    done = subprocess.run(command, env={**os.environ, "AUDIOCRAFT_DORA_DIR": str(runs), "PYTHONPATH": path})
    if done.returncode:
        raise ValueError(f"the training run failed with exit code {done.returncode}; its output above gives the reason")


def find_experiment(runs: Path, settings: Sequence[str]) -> tuple[XP, Path]:
    """Find the trained run with these settings.

    Args:
        runs: Dora's folder.
        settings: arguments of `dora run`.
    Returns:
        The experiment, and the folder of its run.
    Raises:
        ValueError: no such run has finished an epoch.
    """
    from .. import train as entry_point
    experiment = entry_point.main.get_xp(list(settings))
    folder = runs / "xps" / experiment.sig
    if not (folder / "history.json").is_file():
        raise ValueError(f"the training run in {folder} has not finished an epoch; delete the folder and try again")
    return experiment, folder


def shorten(value: tp.Any) -> tp.Any:
    """Shorten an absolute path to its last part, and return any other value as it is.

    >>> shorten("/home/me/release"), shorten("//bundled/magnet-16khz"), shorten(0.5)
    ('release', '//bundled/magnet-16khz', 0.5)
    """
    text = str(value)
    return Path(text).name if text.startswith("/") and not text.startswith("//") else value


def changed_settings(experiment: XP, out: Path) -> list[tuple[str, tp.Any]]:
    """List the settings of a training run that differ from the defaults of its config, as Dora compares them.

    Args:
        experiment: the experiment.
        out: folder of the demo. Paths inside it are omitted, and other absolute paths are shortened to their last part.
    """
    return [(key, shorten(value)) for key, value in experiment.delta or ()
            if not key.startswith(UNRELATED) and not Path(str(value)).is_relative_to(out)]


def read_epochs(run: Path) -> list[Epoch]:
    """Read losses and durations from the history.json of a run."""
    history = json.loads((run / "history.json").read_text())
    return [Epoch(number, epoch["train"]["ce"], epoch["valid"]["ce"],
                  epoch["train"]["duration"] + epoch["valid"]["duration"]) for number, epoch in enumerate(history, start=1)]
