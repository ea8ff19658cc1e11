"""`magnet doctor`: check versions, devices, attention kernels, tools, models and folders, with a remedy for each problem.

It does not use the network. Checks are independent: one that fails does not hide the others.
"""
from __future__ import annotations

import argparse
import importlib.metadata
import os
import platform
import shutil
import sys
import time
import typing as tp
import warnings
from collections.abc import Iterator
from pathlib import Path

from .. import __version__, environment
from .errors import describe

NEEDED = {"torch": "torch", "torchaudio": "torchaudio", "audiocraft": "audiocraft", "dora": "dora-search",
          "flashy": "flashy"}        # Package of each import name.
BUNDLED = ("codec-16khz", "magnet-16khz")
FRAMES, BAND, HEAD_DIM = 500, 5, 64     # Ten seconds of music; the published models' restricted context and heads.
DTYPES = ("float32", "float16", "bfloat16")
STATES = ("ok", "note", "problem")


class Finding(tp.NamedTuple):
    """One line of the report. `state` is one of STATES; `remedy` says what to do if it is not "ok"."""
    state: str
    name: str
    text: str
    remedy: str = ""


Check = tp.Callable[[], Iterator[Finding]]


def add_parser(commands: tp.Any, common: argparse.ArgumentParser) -> None:
    """Add `magnet doctor`."""
    one = commands.add_parser("doctor", parents=[common], help="check versions, devices, kernels and folders",
                              description="Check the installation and print a remedy for each problem. Uses no network. The "
                                          "exit status is 1 if there is a problem, otherwise 0.")
    one.set_defaults(run=lambda args: examine())


def versions() -> Iterator[Finding]:
    """Check Python, this plugin and its main requirements."""
    fits = (3, 10) <= sys.version_info[:2] < (3, 13)
    machine = f"{platform.system()} {platform.machine()}"
    yield Finding("ok" if fits else "problem", "python", f"{platform.python_version()} on {machine}",
                  "" if fits else "use Python 3.10, 3.11 or 3.12")
    yield Finding("ok", "magnet_plugin", f"{__version__} in {environment.PACKAGE}")
    for name, package in NEEDED.items():
        try:
            yield Finding("ok", name, importlib.metadata.version(package))
        except importlib.metadata.PackageNotFoundError:
            yield Finding("problem", name, "not installed",
                          environment.INSTALL_AUDIOCRAFT if package == "audiocraft" else f"pip install {package}")
    try:
        yield Finding("ok", "xformers", importlib.metadata.version("xformers"))
    except importlib.metadata.PackageNotFoundError:
        yield Finding("note", "xformers", "not installed; AudioCraft imports it", "pip install --no-deps xformers")


def imports() -> Iterator[Finding]:
    """Import AudioCraft and register the plugin."""
    started = time.perf_counter()
    from .. import register
    register()
    yield Finding("ok", "import audiocraft", f"{time.perf_counter() - started:.1f} s; the plugin is registered with it")


def devices() -> Iterator[Finding]:
    """List the devices that torch can use."""
    import torch
    yield Finding("ok", "cpu", f"{environment.default_threads()} of {os.cpu_count()} cores for this process")
    for index in range(torch.cuda.device_count()):
        facts = torch.cuda.get_device_properties(index)
        yield Finding("ok", f"cuda:{index}", f"{facts.name}, {facts.total_memory / 2 ** 30:.0f} GiB, compute "
                      f"capability {facts.major}.{facts.minor}, torch built for CUDA {torch.version.cuda}")
    if not torch.cuda.is_available():
        unused = shutil.which("nvidia-smi") is not None
        yield Finding("note" if unused else "ok", "cuda", f"torch {torch.__version__} finds no CUDA device",
                      "nvidia-smi is installed: compare its driver version with the CUDA version that torch is built "
                      f"for ({torch.version.cuda or 'none'})" if unused else "")
    if torch.backends.mps.is_available():
        yield Finding("note", "mps", "Apple GPU; --device mps is experimental")


def attention() -> Iterator[Finding]:
    """Print the table of kernels: one row for each device and dtype, one column for each context."""
    import torch

    from ..modules.attention import available_backends
    from ..modules.attention_probe import REPLACEMENT, xformers_mismatch
    backends = available_backends()
    yield Finding("ok" if "xformers" in backends else "note", "backends", ", ".join(backends),
                  "" if "xformers" in backends else "xformers cannot be imported; PyTorch's kernels are used")
    if mismatch := xformers_mismatch():
        yield Finding("note", "xformers kernels", f"{mismatch[0]}. {REPLACEMENT}", mismatch[1])
    yield Finding("ok", "kernels of auto", f"{'full context':<15} band of {BAND} frames")
    for device in ["cpu", *(f"cuda:{index}" for index in range(torch.cuda.device_count()))]:
        for name in DTYPES:
            yield _kernels(device, name)


def _kernels(device: str, name: str) -> Finding:
    """Run the kernels of both contexts on a device in a dtype: one row of the table."""
    import torch

    from ..modules.attention import choose, fast_kernels
    from ..modules.attention_probe import unsupported_reason
    from ..modules.context import Band, Context, Full
    dtype: torch.dtype = getattr(torch, name)
    contexts: tuple[Context, ...] = Full(), Band(BAND)
    chosen = [choose(context, device, dtype, "auto", FRAMES, HEAD_DIM) for context in contexts]
    row = f"{chosen[0]:<15} {chosen[1]}"
    wrong = [f"{kernel}: {reason}" for kernel in chosen if (reason := unsupported_reason(kernel, device, dtype, HEAD_DIM))]
    if wrong:
        return Finding("problem", f"{device} {name}", f"{row} ({'; '.join(wrong)})", "use another dtype on this device")
    fast = fast_kernels(contexts[1], device, dtype)
    if not fast or chosen[1] in fast:
        return Finding("ok", f"{device} {name}", row)
    return Finding("note", f"{device} {name}", row, "no faster kernel for the band: " + "; ".join(
        f"{kernel}: {unsupported_reason(kernel, device, dtype, HEAD_DIM)}" for kernel in fast))


def tools() -> Iterator[Finding]:
    """Look for the programs that are used."""
    found = shutil.which("ffmpeg")
    if found:
        yield Finding("ok", "ffmpeg", found)
    else:
        try:
            import imageio_ffmpeg
            yield Finding("ok", "ffmpeg", f"{imageio_ffmpeg.get_ffmpeg_exe()} (from imageio-ffmpeg)")
        except (ImportError, RuntimeError) as error:
            yield Finding("problem", "ffmpeg", f"not found ({describe(error)}); AudioCraft needs it to write audio",
                          "pip install imageio-ffmpeg, or install ffmpeg")
    missing = [name for name in ("srun", "sbatch") if not shutil.which(name)]
    yield Finding("note" if missing else "ok", "SLURM",
                  f"{' and '.join(missing)} not on PATH" if missing else f"srun and sbatch in {shutil.which('srun')}",
                  "only needed to submit jobs to a cluster; `dora run` trains on this machine" if missing else "")


def folders() -> Iterator[Finding]:
    """Check the folders of runs and caches."""
    yield _folder("cache folder", environment.cache_dir(), "MAGNET_CACHE")
    import logging
    logging.getLogger("audiocraft.environment").setLevel(logging.ERROR)     # It warns each time its settings are read.
    environment.register_resolvers()
    environment.point_audiocraft_here()
    from audiocraft.environment import AudioCraftEnvironment
    yield _folder("Dora folder", Path(AudioCraftEnvironment.get_dora_dir()), "AUDIOCRAFT_DORA_DIR")


def _folder(name: str, path: Path, variable: str) -> Finding:
    existing = next(parent for parent in (path.absolute(), *path.absolute().parents) if parent.exists())
    if existing.is_dir() and os.access(existing, os.W_OK):
        return Finding("ok", name, f"{path}{'' if path.exists() else ' (created when needed)'}")
    return Finding("problem", name, f"{path} is not writable", f"set {variable} to a writable folder")


def models() -> Iterator[Finding]:
    """List the models that need no download."""
    bundled = environment.PACKAGE / "models" / "bundled"
    here = sorted(path for path in bundled.glob("*") if path.is_dir())
    for folder in here:
        size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
        yield Finding("ok", f"//bundled/{folder.name}", f"{size / 1e6:.1f} MB")
    for name in sorted(set(BUNDLED) - {path.name for path in here}):
        yield Finding("problem", f"//bundled/{name}", f"not in {bundled}", "reinstall the plugin")
    yield _t5()


def _t5() -> Finding:
    """Look for T5, the text encoder of the published models, in the cache."""
    remedy = "only the published models need it (conditioner=text2music); it is downloaded on first use"
    try:
        from huggingface_hub import try_to_load_from_cache
    except ImportError as error:
        return Finding("note", "T5 text encoder", f"cannot check: {describe(error)}", remedy)
    for repo in ("t5-base", "google-t5/t5-base"):
        files = [try_to_load_from_cache(repo, name) for name in ("model.safetensors", "pytorch_model.bin")]
        found = next((file for file in files if isinstance(file, str)), None)
        if found:
            return Finding("ok", "T5 text encoder", found)
    return Finding("note", "T5 text encoder", "not downloaded", remedy)


CHECKS: dict[str, Check] = {"Versions": versions, "Devices": devices, "Attention kernels": attention,
                            "Tools": tools, "Models": models, "AudioCraft": imports, "Folders": folders}


def examine(checks: tp.Mapping[str, Check] | None = None, out: tp.TextIO | None = None) -> int:
    """Run the checks and print each finding.

    Args:
        checks: checks by title. Default: all of them.
        out: where to print. Default: standard output.
    Returns:
        1 if there is a problem, otherwise 0.
    """
    counts = dict.fromkeys(STATES, 0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for title, check in (CHECKS if checks is None else checks).items():
            print(f"\n{title}", file=out, flush=True)
            for finding in _findings_of(check):
                counts[finding.state] += 1
                print(f"  {finding.state:<8} {finding.name:<23} {finding.text}", file=out, flush=True)
                if finding.remedy:
                    print(f"  {'':<8} {'':<23} -> {finding.remedy}", file=out, flush=True)
    print("\nProblems: {problem}, notes: {note}, ok: {ok}".format(**counts), file=out)
    return 1 if counts["problem"] else 0


def _findings_of(check: Check) -> Iterator[Finding]:
    """Yield the findings of a check; any exception becomes one, because a broken installation can fail in any way."""
    try:
        yield from check()
    except Exception as error:
        text = f"{type(error).__name__}: {describe(error)}"
        yield Finding("problem", check.__name__, text, "reinstall the package that the error names")
