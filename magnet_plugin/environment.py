"""Where things are on this machine: configs, caches, runs, an ffmpeg. Imports nothing heavy."""
import getpass
import importlib.util
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

PACKAGE = Path(__file__).resolve().parent
#: Installs the two requirements whose own dependencies cannot be installed today; README.md gives the reasons.
INSTALL_AUDIOCRAFT = "pip install --no-deps 'audiocraft<1.5' tinysoundfont"


def require_audiocraft() -> None:
    """Check that AudioCraft is installed, without importing it.

    Raises:
        ModuleNotFoundError: It is not installed; the message gives the command that installs it.
    """
    if importlib.util.find_spec("audiocraft") is None:
        raise ModuleNotFoundError(f"AudioCraft is not installed. Install it without its outdated pins: {INSTALL_AUDIOCRAFT}",
                                  name="audiocraft")


def config_dir() -> Path:
    """The Hydra configs: inside the package in a wheel, beside it in a checkout."""
    inside = PACKAGE / "config"
    return inside if inside.is_dir() else PACKAGE.parent / "config"


def grids_package() -> str:
    """Name of the package of grids, importable from any directory: in a checkout it lies beside this one, not in it."""
    name = f"{__package__}.grids"
    if not (PACKAGE / "grids").is_dir() and name not in sys.modules:
        home = PACKAGE.parent / "grids"
        spec = importlib.util.spec_from_file_location(name, home / "__init__.py", submodule_search_locations=[str(home)])
        assert spec is not None and spec.loader is not None
        module = sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    return name


def cache_dir(name: str = "") -> Path:
    """Folder for what is made on this machine: rendered data sets, parsed tunes. MAGNET_CACHE moves it."""
    root = os.environ.get("MAGNET_CACHE") or Path(os.environ.get("HOME", "/tmp")) / ".cache" / "magnet_plugin"
    return Path(root).expanduser() / name


def default_device() -> str:
    """`cuda` where torch sees one, else `cpu`."""
    import torch
    return "cuda" if torch.cuda.is_available() else "cpu"


def default_threads() -> int:
    """Cores that this process may use, 16 at most: small models gain nothing from more."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(cores, 16)


def register_resolvers() -> None:
    """Make `${magnet.device:}`, `${magnet.cuda:}`, `${magnet.threads:}` and `${magnet.cache:NAME}` known to OmegaConf."""
    from omegaconf import OmegaConf
    resolvers: dict[str, Callable[..., Any]] = {"device": default_device, "cuda": lambda: default_device() == "cuda",
                 "threads": default_threads, "cache": lambda name: str(cache_dir(name))}
    for name, resolver in resolvers.items():
        OmegaConf.register_new_resolver(f"magnet.{name}", resolver, replace=True)


def point_audiocraft_here() -> None:
    """Name the teams file and the user, which AudioCraft reads when it loads data, models or its configs."""
    team = config_dir() / "teams" / f"{os.environ.get('AUDIOCRAFT_TEAM', 'default')}.yaml"
    if team.exists():
        os.environ.setdefault("AUDIOCRAFT_CONFIG", str(team))
    if "USER" not in os.environ:
        try:
            os.environ["USER"] = getpass.getuser()
        except (KeyError, OSError):   # a container's user without an entry in the password file
            os.environ["USER"] = "anyone"


def provide_ffmpeg() -> None:
    """AudioCraft writes every audio file through an `ffmpeg` on PATH; lend it imageio-ffmpeg's where there is none."""
    if shutil.which("ffmpeg"):
        return
    try:
        import imageio_ffmpeg
        binary = Path(imageio_ffmpeg.get_ffmpeg_exe())
    except (ImportError, RuntimeError):
        return                        # audio_write names what is missing when it is needed
    folder = cache_dir("bin")
    link = folder / "ffmpeg"
    folder.mkdir(parents=True, exist_ok=True)
    if link.resolve() != binary:
        fresh = folder / f".ffmpeg-{os.getpid()}"
        fresh.unlink(missing_ok=True)
        fresh.symlink_to(binary)
        fresh.replace(link)           # atomic: other processes may do the same
    os.environ["PATH"] = os.pathsep.join([os.environ.get("PATH", os.defpath), str(folder)])
