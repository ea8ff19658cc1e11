"""`dora grid` and `dora launch`: what jobs ask SLURM for, and what happens where there is no SLURM.

What a job asks for comes from, the later the stronger: `slurm` in config.yaml, `slurm` in the team's file (config/teams),
MAGNET_SLURM_FIELD in the environment, `-g`, `-p` and the like on the command line. A grid's own needs yield to the last two.
"""
import dataclasses
import getpass
import os
import shlex
import shutil
import sys
import typing as tp
from pathlib import Path

from dora import git_save
from dora.conf import SlurmConfig
from dora.log import fatal
from dora.shep import Sheep, Shepherd
from submitit.core.utils import UncompletedJobError

from ..data.preflight import check_datasource
from .records import read_job

PREFIX = "MAGNET_SLURM_"
HINT = ("Jobs are to run from a clone of the git repository in which the command is given (git_save). Commit there first, "
        "or switch it off: --no_git_save for this command, MAGNET_GIT_SAVE=false for all.")


def read(name: str, text: str) -> tp.Any:
    """The value of one field of Dora's SlurmConfig.

    Args:
        name: of the field.
        text: as written in the environment; empty or `null` for none, `;` between the items of a list.
    Raises:
        ValueError: there is no such field, or the text is none of its values.
    """
    kinds = tp.get_type_hints(SlurmConfig)
    if name not in kinds:
        raise ValueError(f"{PREFIX}{name.upper()} is none of SLURM's settings; there are "
                         + ", ".join(PREFIX + known.upper() for known in kinds))
    options = [kind for kind in tp.get_args(kinds[name]) if kind is not type(None)]
    nullable = type(None) in tp.get_args(kinds[name]) or kinds[name] is str
    kind = options[0] if type(None) in tp.get_args(kinds[name]) else kinds[name]
    if text in ("", "null") and nullable:
        return None
    if kind is bool and text.lower() in ("true", "false", "1", "0"):
        return text.lower() in ("true", "1")
    if tp.get_origin(kind) is list:
        return [part.strip() for part in text.split(";") if part.strip()]
    if kind in (int, float, str):
        try:
            return kind(text)
        except ValueError:
            pass
    raise ValueError(f"{PREFIX}{name.upper()}={text!r} is not {getattr(kind, '__name__', kind)}")


def from_environment(environ: tp.Optional[tp.Mapping[str, str]] = None) -> dict[str, tp.Any]:
    """Fields of SlurmConfig that MAGNET_SLURM_FIELD sets.

    Raises:
        ValueError: see `read`.
    """
    environ = os.environ if environ is None else environ
    return {name.removeprefix(PREFIX).lower(): read(name.removeprefix(PREFIX).lower(), text)
            for name, text in sorted(environ.items()) if name.startswith(PREFIX)}


def settings(*layers: tp.Mapping[str, tp.Any], environ: tp.Optional[tp.Mapping[str, str]] = None) -> SlurmConfig:
    """What a job asks for where its grid says nothing.

    Args:
        layers: the `slurm` sections of config.yaml and of the team's file, the stronger one last.
        environ: instead of the process's environment, which is stronger than all of them.
    Raises:
        ValueError: a section or a variable names what SlurmConfig lacks, or a variable's value does not fit.
    """
    slurm = SlurmConfig(partition=tp.cast(str, None))        # Dora's own default is a partition of one site
    known = {field.name for field in dataclasses.fields(SlurmConfig)}
    for layer in (*layers, from_environment(environ)):
        unknown = sorted(set(layer) - known)
        if unknown:
            raise ValueError(f"slurm: there is no {', '.join(unknown)}; there are {', '.join(sorted(known))}")
        slurm = dataclasses.replace(slurm, **layer)
    if slurm.mem_per_gpu:                                    # Dora writes it as it is, and SLURM takes whole numbers alone
        if slurm.mem_per_gpu != int(slurm.mem_per_gpu):
            raise ValueError(f"mem_per_gpu={slurm.mem_per_gpu} has to be a whole number of GB")
        slurm.mem_per_gpu = int(slurm.mem_per_gpu)
    return slurm


def set_master_port(environ: tp.MutableMapping[str, str] = os.environ) -> None:
    """In a SLURM job, let the ranks meet on a port of the job's own (MASTER_PORT, unless it is set).

    Dora draws one up to 60000, and above 32767 it may be that of any outgoing connection (Linux, ip_local_port_range): such
    a job dies of EADDRINUSE. The ids of jobs that run at a time are close, so that no two of them get the same port.
    """
    if environ.get("SLURM_JOB_ID", "").isdecimal():
        environ.setdefault("MASTER_PORT", str(20000 + int(environ["SLURM_JOB_ID"]) % 12000))


def available() -> bool:
    """Whether jobs can be submitted from here."""
    return all(shutil.which(program) for program in ("srun", "sbatch"))


def local_command(sheep: Sheep, slurm: SlurmConfig, package: str) -> str:
    """The command that runs a job here, in the shell's words."""
    short = (Path(package) / "train.py").exists() and not os.environ.get("DORA_PACKAGE")
    words = ["dora", *([] if short else ["-P", package]), "run", *(["-d"] if slurm.gpus > 1 else []), *sheep.xp.argv]
    return " ".join(map(shlex.quote, words))


def finished(sheep: Sheep) -> bool:
    """Whether a job has done all that it was to do, wherever it ran."""
    return read_job(sheep.xp.folder).status == "finished"


class GridShepherd(Shepherd):
    """Dora's Shepherd, which says what to do where it would die: without SLURM, without a login, without a clean clone.
    Jobs that evaluate another job's model are made to wait for it."""
    _after: tp.Sequence[str] = ()

    def get_sheep_from_argv(self, argv: tp.Sequence[str]) -> Sheep:
        try:
            sheep = super().get_sheep_from_argv(argv)
            check_datasource(sheep.xp.cfg.datasource, sheep.xp.cfg.execute_only)
            return sheep
        except Exception as error:
            if not isinstance(error, ValueError) and not type(error).__module__.startswith(("omegaconf", "hydra")):
                raise
            # A grid composes its jobs in other processes; this is how a line of text leaves them.
            raise SystemExit(f"{error}\nin: dora run {shlex.join(argv)}\n"
                             "MAGNET_GRID_OVERRIDES=\"KEY=VALUE …\" gives a setting to every job of a grid.") from error

    def _check_orphans(self) -> None:
        if available() and any(self._orphans.iterdir()):
            login, os.getlogin = os.getlogin, getpass.getuser       # a container has no login
            try:
                super()._check_orphans()
            finally:
                os.getlogin = login

    def _cancel(self, jobs: list) -> None:
        if shutil.which("scancel"):
            super()._cancel(jobs)
        else:
            print("No SLURM on this machine (scancel is not on PATH). Where it is: scancel "
                  + " ".join(job.job_id for job in jobs), file=sys.stderr)

    def commit(self) -> None:
        """Submit, or print the commands that run the jobs here."""
        if self._to_submit and not available():
            self._print_commands()
            self._to_submit.clear()
        try:
            super().commit()
        except git_save.CommandError as error:
            fatal(f"{error}\n{HINT}")
        except UncompletedJobError as error:                        # of sbatch
            fatal(f"SLURM refused the job: {error}\nWhat jobs ask for is set by the team's file (config/teams), "
                  f"{PREFIX}PARTITION, {PREFIX}TIME and so on.")
        except SystemExit:                                          # Dora has named the files that are not committed
            print(HINT, file=sys.stderr)
            raise

    def parents(self, sheeps: tp.Sequence[Sheep]) -> list[str]:
        """Ids of the jobs, pending or running, whose models `sheeps` are to evaluate.

        Raises:
            SystemExit: such a model is not trained, and no job is about to.
        """
        ids = []
        for source in dict.fromkeys(str(sheep.xp.cfg.continue_from) for sheep in sheeps if sheep.xp.cfg.execute_only):
            if not source.startswith("//sig/"):
                continue
            sig = source.removeprefix("//sig/")
            folder = self.main.dora.dir / self.main.dora.xps / sig
            parent = self.get_sheep_from_sig(sig) if folder.exists() else None
            if parent is not None and finished(parent):
                continue
            if parent is None or parent.job is None or parent.is_done("force"):
                fatal(f"continue_from={source} is not trained to its end, and no job does it ({folder}): its evaluation was "
                      "not submitted. In a grid, --retry submits the training again.")
            ids.append(parent.job.job_id)                           # type: ignore[union-attr]
        return ids

    def _submit(self, job_array: tp.Any) -> None:
        self._after = self.parents(job_array.sheeps)
        super()._submit(job_array)

    def _get_submitit_executor(self, name: str, folder: Path, slurm_config: SlurmConfig) -> tp.Any:
        executor = super()._get_submitit_executor(name, folder, slurm_config)
        if self._after:
            more = executor.parameters.get("additional_parameters") or {}
            executor.update_parameters(additional_parameters={
                **more, "dependency": "afterok:" + ":".join(self._after), "kill-on-invalid-dep": "yes"})
        return executor

    def _print_commands(self) -> None:
        jobs = [(sheep, array.slurm_config) for array in self._to_submit for sheep in array.sheeps]
        todo = [(sheep, slurm) for sheep, slurm in jobs if not finished(sheep)]
        if not jobs:
            return
        print("No SLURM on this machine (srun and sbatch are not on PATH): nothing was submitted.", file=sys.stderr)
        if len(todo) < len(jobs):
            print(f"{len(jobs) - len(todo)} of {len(jobs)} runs are finished here.", file=sys.stderr)
        if todo:
            print("To run here, one after the other:", file=sys.stderr, flush=True)
        for sheep, slurm in todo:
            self.main.init_xp(sheep.xp)                             # so that Dora knows what was asked for
            print(local_command(sheep, slurm, self.main.package), flush=True)


class LaunchShepherd(GridShepherd):
    """The same for `dora launch`, which would wait for a job's log. It evaluates what there is of a model."""

    def parents(self, sheeps: tp.Sequence[Sheep]) -> list[str]:
        return []

    def get_sheep_from_argv(self, argv: tp.Sequence[str]) -> Sheep:
        sheep = super().get_sheep_from_argv(argv)
        if sheep.job is not None and not available():
            print(f"Job {sheep.job.job_id} was submitted elsewhere; without SLURM it can be neither seen nor cancelled from "
                  "here.", file=sys.stderr)
            sheep.job = None
        return sheep

    def commit(self) -> None:
        waiting = any(array.sheeps for array in self._to_submit)
        super().commit()
        if waiting and not available():
            sys.exit(1)


def take_over(main: tp.Any, *layers: tp.Mapping[str, tp.Any]) -> None:
    """Let Dora's commands use the above.

    Args:
        main: Dora's main.
        layers: see `settings`.
    """
    from dora import grid, info, launch, run

    def get_slurm_config() -> SlurmConfig:
        try:
            return settings(*layers)
        except ValueError as error:
            fatal(str(error))
    main.get_slurm_config = get_slurm_config
    main.get_xp_history = lambda xp: read_job(xp.folder).history    # Dora's dies of a job that left half a file
    for module, shepherd in ((grid, GridShepherd), (info, GridShepherd), (run, GridShepherd), (launch, LaunchShepherd)):
        module.Shepherd = shepherd                                  # type: ignore[attr-defined]
