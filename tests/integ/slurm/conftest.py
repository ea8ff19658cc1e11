"""The cluster that the tests of this folder share, and Dora's records of what ran in it."""
import os
import shutil
import signal
import sys
import tempfile
import time
import typing as tp
from pathlib import Path

import pytest

from ..runs import ROOT
from .cluster import FINISHED, Cluster, missing

TINY = {"PARTITION": "tiny", "GPUS": "0", "CPUS_PER_GPU": "1", "MEM_PER_GPU": "1", "TIME": "30"}


@pytest.fixture(scope="session")
def cluster() -> tp.Iterator[Cluster]:
    """A running SLURM. Everything started here finds it in the environment."""
    if os.geteuid():
        pytest.skip("a SLURM on one host needs root")
    if missing():
        pytest.skip(f"a SLURM on one host needs Debian's packages {' '.join(missing())}; make test-slurm installs them")
    home = Path(tempfile.mkdtemp(prefix="slurm-"))
    one = Cluster(home / "s")
    terminate = signal.signal(signal.SIGTERM, lambda *_: pytest.exit("terminated"))     # which takes everything down
    try:
        with pytest.MonkeyPatch.context() as patch:
            for name, value in one.environment.items():
                patch.setenv(name, value)
            for name, value in TINY.items():
                patch.setenv(f"MAGNET_SLURM_{name}", value)
            # A checkout is found from any directory, as an installed package is.
            patch.setenv("PYTHONPATH", os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")])))
            one.start()
            yield one
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        one.stop()
        signal.signal(signal.SIGTERM, terminate)
        shutil.rmtree(home, ignore_errors=True)


class Records:
    """Jobs by way of Dora: submitted, and read back from what Dora keeps.

    Args:
        cluster: where they run.
        folder: `folder / "runs"` is Dora's folder.
    """

    def __init__(self, cluster: Cluster, folder: Path) -> None:
        from magnet_plugin.train import main
        self.cluster, self.folder, self.main = cluster, folder, main
        main.dora.dir = folder / "runs"

    def shepherd(self) -> tp.Any:
        from magnet_plugin.sweeps.slurm import GridShepherd
        return GridShepherd(self.main)

    def submit(self, *overrides: str) -> tp.Any:
        """As `dora launch` does. Returns Dora's Sheep."""
        from dora.conf import SubmitRules
        shepherd = self.shepherd()
        sheep = shepherd.get_sheep_from_argv(overrides)
        shepherd.maybe_submit_lazy(sheep, self.main.get_slurm_config(), SubmitRules())
        shepherd.commit()
        return sheep

    def find(self, sig: str) -> tp.Any:
        """Dora's Sheep of a signature, with its current state."""
        sheep = self.shepherd().get_sheep_from_sig(sig)
        sheep.state("force")
        return sheep

    def history(self, sheep: tp.Any) -> list[dict]:
        return self.main.get_xp_history(sheep.xp)

    def follow(self, sheep: tp.Any, text: str, seconds: float = 300) -> None:
        """Wait until a job's log holds `text`.

        Raises:
            AssertionError: it ended without, or took too long; the end of the log is shown.
        """
        start = checked = time.monotonic()
        over = False
        while not over and time.monotonic() < start + seconds:
            if time.monotonic() > checked + 3:                     # before the log is read, so that its last lines are seen
                checked = time.monotonic()
                over = self.cluster.states(sheep.job.job_id).get(sheep.job.job_id) in FINISHED
            log = sheep.log.read_text() if sheep.log.exists() else ""
            if text in log:
                return
            time.sleep(0.1)
        raise AssertionError(f"{text!r} is not in {sheep.log}:\n{log[-3000:]}")

    def over(self, sheep: tp.Any, seconds: float = 600) -> str:
        """State of a job that is over; prints it."""
        job = sheep.job.job_id
        state = self.cluster.wait(job, seconds)[job]
        report_line(f"job {job} ({sheep.xp.sig}): {state}")
        return state


@pytest.fixture(scope="session")
def records(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> tp.Iterator[Records]:
    folder = tmp_path_factory.mktemp("dora")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AUDIOCRAFT_DORA_DIR", str(folder / "runs"))        # jobs inherit it
        yield Records(cluster, folder)


def report_line(text: str) -> None:
    """Print a line for the person who runs the suite with `-s`."""
    print(f"\nSLURM: {text}", file=sys.stdout, flush=True)
