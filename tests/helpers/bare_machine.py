"""Hide what a fresh machine lacks, so that no test depends on what is installed, configured or cached here."""
import os
import shutil
import sys
import typing as tp
from pathlib import Path

#: The programs of a machine with Python, git, make and a POSIX shell. Anything else (SLURM, ffmpeg, sox, ...) is hidden.
PROGRAMS = (
    "awk", "bash", "basename", "cat", "chmod", "cp", "cut", "date", "dirname", "env", "expr", "false", "find", "git", "grep",
    "head", "hostname", "id", "ln", "ls", "make", "mkdir", "mktemp", "mv", "printf", "ps", "pwd", "readlink", "rm", "rmdir",
    "sed", "sh", "sleep", "sort", "tail", "tar", "test", "touch", "tr", "true", "uname", "uniq", "wc", "which", "xargs")
#: Settings of the user, of a scheduler, of a process group, and of libraries that keep their files in the home folder.
SETTINGS = ("AUDIOCRAFT_", "MAGNET_", "DORA_", "HYDRA_", "SLURM_", "SBATCH_", "SQUEUE_", "SUBMITIT_", "HF_", "HUGGINGFACE_",
            "TRANSFORMERS_", "TORCH_HOME", "XDG_", "MPL", "GIT_", "USER", "LOGNAME", "RANK", "LOCAL_RANK", "WORLD_SIZE",
            "MASTER_")


def bare(environ: tp.Mapping[str, str], folder: Path) -> dict[str, str]:
    """Return the environment of a fresh machine.

    Args:
        environ: Environment of this machine.
        folder: Empty folder that receives the programs on PATH and the home folder.
    """
    programs, home = folder / "bin", folder / "home"
    for path in (programs, home):
        path.mkdir(parents=True)
    for name in PROGRAMS:
        if found := shutil.which(name, path=environ.get("PATH", os.defpath)):
            (programs / name).symlink_to(found)
    for name in ("python", "python3"):
        (programs / name).symlink_to(getattr(sys, "_base_executable", sys.executable))
    kept = {name: value for name, value in environ.items() if not name.startswith(SETTINGS)}
    return {**kept, "PATH": str(programs), "HOME": str(home), "GIT_CONFIG_NOSYSTEM": "1",
            "HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "HYPOTHESIS_STORAGE_DIRECTORY": str(home / "hypothesis")}
