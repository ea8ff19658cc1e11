"""Patches of Dora's launcher for `dora grid` and `dora launch`; `patch_dora` installs them.

They mend Dora 0.1.13, and each says what a later version would have to do to make it unnecessary. What jobs request from
SLURM is in `slurm_config`.
"""
import argparse
import getpass
import os
import shlex
import shutil
import sys
import typing as tp
from pathlib import Path

from dora import git_save
from dora.conf import SlurmConfig
from dora.explore import Explorer
from dora.log import fatal, simple_log
from dora.shep import Sheep, Shepherd
from submitit.core.utils import UncompletedJobError

from ..data.preflight import check_datasource
from . import catalog
from .records import read_job
from .runs import local_command
from .slurm_config import PREFIX, slurm_settings

GIT_HINT = ("git_save is on: jobs run from a clone of the git repository of the current directory, which must have no "
            "uncommitted changes. Commit them, or turn git_save off with --no_git_save (this command) or "
            "MAGNET_GIT_SAVE=false (all commands).")


def slurm_available() -> bool:
    """Return whether jobs can be submitted from this machine."""
    return all(shutil.which(program) for program in ("srun", "sbatch"))


def is_finished(sheep: Sheep) -> bool:
    """Return whether a job has completed all of its epochs or its single stage, on whichever machine."""
    return read_job(sheep.xp.folder).status == "finished"


class GridShepherd(Shepherd):
    """Dora's scheduler with dependencies between jobs, local commands without SLURM, and errors that say what to do.

    Evaluations wait for the training of their model (`find_parents`). Unnecessary once Dora lets a grid declare such
    dependencies and reports the errors below without a traceback.
    """
    _dependencies: tp.Sequence[str] = ()

    def get_sheep_from_argv(self, argv: tp.Sequence[str]) -> Sheep:
        """Compose a job; report bad settings in two lines instead of a traceback.

        Dora composes the jobs of a grid in other processes, and SystemExit is what carries a line of text out of them.
        """
        try:
            sheep = super().get_sheep_from_argv(argv)
            check_datasource(sheep.xp.cfg.datasource, sheep.xp.cfg.execute_only)
            return sheep
        except Exception as error:
            if not isinstance(error, ValueError) and not type(error).__module__.startswith(("omegaconf", "hydra")):
                raise
            raise SystemExit(f"{error}\nin: dora run {shlex.join(argv)}\n"
                             'Use MAGNET_GRID_OVERRIDES="KEY=VALUE ..." to add settings to every job of a grid') from error

    def _check_orphans(self) -> None:
        """Dora calls `os.getlogin`, which fails in containers, and `squeue`. Unnecessary once it uses `getpass.getuser`."""
        if slurm_available() and any(self._orphans.iterdir()):
            login, os.getlogin = os.getlogin, getpass.getuser
            try:
                super()._check_orphans()
            finally:
                os.getlogin = login

    def _cancel(self, jobs: list) -> None:
        """Dora fails without `scancel`. Unnecessary once it checks for SLURM itself."""
        if shutil.which("scancel"):
            super()._cancel(jobs)
        else:
            print("SLURM is not available on this machine (scancel is not on PATH). Cancel the jobs where it is: scancel "
                  + " ".join(job.job_id for job in jobs), file=sys.stderr)

    def commit(self) -> None:
        """Submit the jobs, or print the commands that run them here. Unnecessary once Dora does so without SLURM."""
        if self._to_submit and not slurm_available():
            self._print_commands()
            self._to_submit.clear()
        try:
            super().commit()
        except git_save.CommandError as error:
            fatal(f"{error}\n{GIT_HINT}")
        except UncompletedJobError as error:                        # raised by submitit when sbatch fails
            fatal(f"SLURM rejected the job: {error}\nChange what jobs request in your team's file (config/teams) or with "
                  f"{PREFIX}PARTITION, {PREFIX}TIME and so on; see docs/slurm.md.")
        except SystemExit:                                          # Dora has listed the uncommitted files
            print(GIT_HINT, file=sys.stderr)
            raise

    def find_parents(self, sheeps: tp.Sequence[Sheep]) -> list[str]:
        """Return the ids of pending and running jobs that train the models which `sheeps` evaluate.

        Raises:
            SystemExit: The training of such a model is not complete, and no job continues it.
        """
        ids = []
        for source in dict.fromkeys(str(sheep.xp.cfg.continue_from) for sheep in sheeps if sheep.xp.cfg.execute_only):
            if not source.startswith("//sig/"):
                continue
            sig = source.removeprefix("//sig/")
            folder = self.main.dora.dir / self.main.dora.xps / sig
            parent = self.get_sheep_from_sig(sig) if folder.exists() else None
            if parent is not None and is_finished(parent):
                continue
            if parent is None or parent.job is None or parent.is_done("force"):
                fatal(f"continue_from={source}: the training of this model is incomplete and no job runs it ({folder}). Its "
                      "evaluation was not submitted. `dora grid --retry` submits the training again.")
            ids.append(parent.job.job_id)                           # type: ignore[union-attr]
        return ids

    def _submit(self, job_array: tp.Any) -> None:
        self._dependencies = self.find_parents(job_array.sheeps)
        super()._submit(job_array)

    def _get_submitit_executor(self, name: str, folder: Path, slurm_config: SlurmConfig) -> tp.Any:
        executor = super()._get_submitit_executor(name, folder, slurm_config)
        if self._dependencies:
            others = executor.parameters.get("additional_parameters") or {}
            executor.update_parameters(additional_parameters={
                **others, "dependency": "afterok:" + ":".join(self._dependencies), "kill-on-invalid-dep": "yes"})
        return executor

    def _print_commands(self) -> None:
        """Print what to run here: commands to stdout, explanations to stderr."""
        jobs = [(sheep, array.slurm_config) for array in self._to_submit for sheep in array.sheeps]
        remaining = [(sheep, slurm) for sheep, slurm in jobs if not is_finished(sheep)]
        if not jobs:
            return
        print("SLURM is not available on this machine (srun and sbatch are not on PATH): nothing was submitted.",
              file=sys.stderr)
        if len(remaining) < len(jobs):
            print(f"{len(jobs) - len(remaining)} of {len(jobs)} jobs have already finished here.", file=sys.stderr)
        if remaining:
            print("To run the job here:" if len(remaining) == 1 else
                  "To run the jobs here, run these commands one after the other, in this order (a model is trained before "
                  "it is evaluated; `magnet runs` shows how far they are):", file=sys.stderr, flush=True)
        for sheep, slurm in remaining:
            self.main.init_xp(sheep.xp)                 # for `magnet grid-report` and continue_from=//sig/SIG
            print(local_command(sheep.xp.argv, slurm.gpus > 1, self.main.package), flush=True)


class LaunchShepherd(GridShepherd):
    """The same for `dora launch`, whose one job does not wait for another: it evaluates the best weights so far."""

    def find_parents(self, sheeps: tp.Sequence[Sheep]) -> list[str]:
        return []

    def get_sheep_from_argv(self, argv: tp.Sequence[str]) -> Sheep:
        """Ignore a job that was submitted elsewhere, whose state Dora cannot query without SLURM."""
        sheep = super().get_sheep_from_argv(argv)
        if sheep.job is not None and not slurm_available():
            print(f"Job {sheep.job.job_id} was submitted from another machine. Without SLURM its state is unknown here and "
                  "it cannot be cancelled.", file=sys.stderr)
            sheep.job = None
        return sheep

    def commit(self) -> None:
        """Exit after printing the local command: Dora would go on to wait for the job's log."""
        waiting = any(array.sheeps for array in self._to_submit)
        super().commit()
        if waiting and not slurm_available():
            sys.exit(1)


def get_explorer(args: argparse.Namespace, main: tp.Any) -> Explorer:
    """Find the grid that `dora grid NAME` names, or list all grids if NAME is omitted.

    Dora's own function requires a file per grid, which the grids of `magnet.tiny` do not have, and exits with status 0 if
    there is none. Unnecessary once Dora imports a grid without looking for its file.
    """
    if args.grid is None:
        simple_log("Grid:", f"Potential grids are: {', '.join(catalog.grid_names())}")
        sys.exit(0)
    try:
        catalog.check_name(args.grid)
        return catalog.load_explorer(args.grid)
    except ValueError as error:
        fatal(str(error))


def patch_dora(main: tp.Any, *layers: tp.Mapping[str, tp.Any]) -> None:
    """Make Dora's commands use this module.

    Args:
        main: Dora's decorated main function.
        layers: See `slurm_config.slurm_settings`.
    """
    from dora import grid, info, launch, run

    def get_slurm_config() -> SlurmConfig:
        try:
            return slurm_settings(*layers)
        except ValueError as error:
            fatal(str(error))
    main.get_slurm_config = get_slurm_config            # Dora's knows config.yaml only, neither team nor environment
    main.get_xp_history = lambda xp: read_job(xp.folder).history    # Dora's fails if a job left a truncated history.json
    grid._get_explore = get_explorer
    for module, shepherd in ((grid, GridShepherd), (info, GridShepherd), (run, GridShepherd), (launch, LaunchShepherd)):
        module.Shepherd = shepherd                                  # type: ignore[attr-defined]
