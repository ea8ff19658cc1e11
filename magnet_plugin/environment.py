"""Paths, environment variables and files of this machine. Imports nothing heavy."""
import contextlib
import getpass
import importlib.util
import logging
import os
import shutil
import sys
import uuid
import warnings
from collections.abc import Callable, Iterable, Iterator
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


def dora_run(overrides: Iterable[str]) -> list[str]:
    """Return the command that trains in a process of its own, with this Python and this package."""
    return [sys.executable, "-m", "dora", "-P", "magnet_plugin", "run", *overrides]


def config_dir() -> Path:
    """The Hydra configs: inside the package in a wheel, next to it in a checkout."""
    inside = PACKAGE / "config"
    return inside if inside.is_dir() else PACKAGE.parent / "config"


def grids_package() -> str:
    """Import the package of grids from any directory and return its name. In a checkout it lies next to this package."""
    name = f"{__package__}.grids"
    if not (PACKAGE / "grids").is_dir() and name not in sys.modules:
        home = PACKAGE.parent / "grids"
        spec = importlib.util.spec_from_file_location(name, home / "__init__.py", submodule_search_locations=[str(home)])
        assert spec is not None and spec.loader is not None
        module = sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    return name


def cache_dir(name: str = "") -> Path:
    """Folder for generated files, such as rendered data sets and parsed tunes. MAGNET_CACHE overrides its location."""
    root = os.environ.get("MAGNET_CACHE") or Path(os.environ.get("HOME", "/tmp")) / ".cache" / "magnet_plugin"
    return Path(root).expanduser() / name


def dora_dir() -> Path:
    """The folder of Dora's runs, as AudioCraft finds it, but usually without importing AudioCraft."""
    if "AUDIOCRAFT_DORA_DIR" in os.environ:
        return Path(os.environ["AUDIOCRAFT_DORA_DIR"])
    point_audiocraft_here()
    from omegaconf import OmegaConf
    path = os.environ.get("AUDIOCRAFT_CONFIG", "")
    sections = OmegaConf.load(path) if Path(path).is_file() else OmegaConf.create()
    folders = {str(section.dora_dir) for section in sections.values()}
    if len(folders) == 1:               # otherwise the kind of cluster decides
        return Path(folders.pop())
    from audiocraft.environment import AudioCraftEnvironment
    return AudioCraftEnvironment.get_dora_dir()


@contextlib.contextmanager
def atomic_write(path: Path, durable: bool = False) -> Iterator[Path]:
    """Yield a temporary path next to `path`, and rename it to `path` if the block succeeds.

    Other processes see the old file or the complete new one, and may write the same file at the same time. With `durable`,
    this also holds after a crash of the machine.
    """
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.part")
    try:
        yield temporary
        if durable:
            flush_to_disk(temporary)
        temporary.replace(path)
        if durable:
            flush_to_disk(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def flush_to_disk(path: Path) -> None:
    """Wait until the contents of a file, or the names in a folder, are on the disk.

    Renaming a file that is not on the disk yet can replace a good file by an empty one if the machine crashes.
    """
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError:
        if not path.is_dir():           # Some network file systems cannot flush folders.
            raise
    finally:
        os.close(descriptor)


def default_device() -> str:
    """`cuda` if available, else `cpu`."""
    import torch
    return "cuda" if torch.cuda.is_available() else "cpu"


def default_threads() -> int:
    """Cores that this process may use, 16 at most: small models gain nothing from more."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(cores, 16)


def register_resolvers() -> None:
    """Make the resolvers of this function, such as `${magnet.device:}` and `${magnet.cache:NAME}`, known to OmegaConf.

    `${magnet.split:FOLDER,NAME}` is the manifest folder of a split below the output of `magnet data scan`; null without one.
    """
    from omegaconf import OmegaConf
    resolvers: dict[str, Callable[..., Any]] = {"device": default_device, "cuda": lambda: default_device() == "cuda",
                 "threads": default_threads, "cache": lambda name: str(cache_dir(name)),
                 "split": lambda folder, name: f"{folder}/egs/{name}" if folder else None}
    for name, resolver in resolvers.items():
        OmegaConf.register_new_resolver(f"magnet.{name}", resolver, replace=True)


def point_audiocraft_here() -> None:
    """Set AUDIOCRAFT_CONFIG and USER, which AudioCraft reads when it loads data, models or its configs."""
    team = config_dir() / "teams" / f"{os.environ.get('AUDIOCRAFT_TEAM', 'default')}.yaml"
    if team.exists():
        os.environ.setdefault("AUDIOCRAFT_CONFIG", str(team))
    if "USER" not in os.environ:
        try:
            os.environ["USER"] = getpass.getuser()
        except (KeyError, OSError):   # a container's user without an entry in the password file
            os.environ["USER"] = "anyone"


def quiet_libraries() -> None:
    """Hide what AudioCraft says to its developers: where Dora's folder is, old fixes, and torch's new names."""
    logging.getLogger("audiocraft.environment").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", message=r".*weight_norm`? is deprecated", category=FutureWarning)
    warnings.filterwarnings("ignore", message=r"Up to version 1\.0\.1, the _prepare_tokens_and_attributes")


def ensure_ffmpeg() -> None:
    """Put an `ffmpeg` on PATH, which AudioCraft needs to write audio files; fall back to imageio-ffmpeg's."""
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
        with atomic_write(link) as temporary:
            temporary.symlink_to(binary)
    os.environ["PATH"] = os.pathsep.join([os.environ.get("PATH", os.defpath), str(folder)])
