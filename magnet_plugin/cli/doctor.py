"""`magnet doctor`: what is installed, which kernels run, where things are kept, and what to do about what is amiss.

It does not touch the network, and each check stands alone: one that fails does not hide the others.
"""
from __future__ import annotations

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

NEEDED = {"torch": "torch", "torchaudio": "torchaudio", "audiocraft": "audiocraft", "dora": "dora-search",
          "flashy": "flashy"}        # import name: package
BUNDLED = ("codec-16khz", "magnet-16khz")
FRAMES = 500                    # ten seconds of music
STATES = ("ok", "note", "problem")
TOLERANCES = {"float32": 1e-4, "float16": 5e-3, "bfloat16": 4e-2}       # against a float32 mask, for values near 1


class Finding(tp.NamedTuple):
    """One line of the report. `state` is one of STATES; `remedy` says what to do, unless all is well."""
    state: str
    name: str
    text: str
    remedy: str = ""


Check = tp.Callable[[], Iterator[Finding]]


def describe(error: BaseException) -> str:
    """An error and what caused it, in one line."""
    parts: list[str] = []
    cause: BaseException | None = error
    while cause is not None:
        text = " ".join(str(cause).split())
        if parts or not text:
            text = f"{type(cause).__name__}{': ' if text else ''}{text}"
        if text not in parts:                       # layers of one library often hand the same error on
            parts.append(text)
        cause = cause.__cause__ or (None if cause.__suppress_context__ else cause.__context__)
    return "; caused by ".join(parts)


def versions() -> Iterator[Finding]:
    """Python, this plugin, and what it stands on."""
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
    """AudioCraft, imported and taken over."""
    started = time.perf_counter()
    from .. import register
    register()
    yield Finding("ok", "import audiocraft", f"{time.perf_counter() - started:.1f} s; the plugin is registered with it")


def devices() -> Iterator[Finding]:
    """Processors that torch can use."""
    import torch
    yield Finding("ok", "cpu", f"{environment.default_threads()} of {os.cpu_count()} cores for this process")
    for index in range(torch.cuda.device_count()):
        facts = torch.cuda.get_device_properties(index)
        yield Finding("ok", f"cuda:{index}", f"{facts.name}, {facts.total_memory / 2 ** 30:.0f} GiB, compute "
                      f"capability {facts.major}.{facts.minor}, torch built for CUDA {torch.version.cuda}")
    if not torch.cuda.is_available():
        unused = shutil.which("nvidia-smi") is not None
        yield Finding("note" if unused else "ok", "cuda", f"torch {torch.__version__} sees no CUDA device",
                      "nvidia-smi is here: compare its driver with the CUDA that torch is built for "
                      f"({torch.version.cuda or 'none'})" if unused else "")
    if torch.backends.mps.is_available():
        yield Finding("note", "mps", "Apple GPU: works by --device mps, experimental")


def attention() -> Iterator[Finding]:
    """The kernel of each context, device and dtype, run on a few frames and compared with a plain mask."""
    import torch

    from ..modules.attention import available_backends
    backends = available_backends()
    yield Finding("ok" if "xformers" in backends else "note", "backends", ", ".join(backends),
                  "" if "xformers" in backends else "torch runs everything; xformers cannot be imported")
    for device in ["cpu", *(f"cuda:{index}" for index in range(torch.cuda.device_count()))]:
        for name in TOLERANCES:
            yield _kernels(device, name)


def _kernels(device: str, name: str) -> Finding:
    """What Full and Band(5) run on a device in a dtype, and whether it is right."""
    import torch

    from ..modules.attention import Band, Context, Full, attend, choose
    dtype: torch.dtype = getattr(torch, name)
    contexts: dict[str, Context] = {"Full": Full(), "Band(5)": Band(5)}
    title, chosen, wrong = f"{device} {name}", [], []
    generator = torch.Generator().manual_seed(0)
    q, k, v = torch.randn(3, 1, 2, FRAMES, 64, generator=generator).to(device)      # [B, H, T, D] each
    for label, context in contexts.items():
        try:
            kernel = choose(context, device, dtype, seq_len=FRAMES, head_dim=64)
            out = attend(q.to(dtype), k.to(dtype), v.to(dtype), context).float()
        except (RuntimeError, ValueError, NotImplementedError) as error:
            return Finding("problem", title, f"{label}: {describe(error)}", "use another dtype on this device")
        mask = context.dense(FRAMES, FRAMES, device)
        exact = torch.nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        chosen.append(f"{label} by {kernel}")
        if not (out - exact).abs().max() < TOLERANCES[name]:
            wrong.append(f"{label} is off by {(out - exact).abs().max():.2g}")
    if wrong:
        return Finding("problem", title, "; ".join(chosen + wrong), "set efficient_attention_backend=torch")
    slow = device != "cpu" and name != "float32" and not all("xformers" in text for text in chosen)
    return Finding("note" if slow else "ok", title, ", ".join(chosen),
                   "an xformers built for this torch and GPU may be faster" if slow else "")


def tools() -> Iterator[Finding]:
    """Programs outside of Python."""
    found = shutil.which("ffmpeg")
    if found:
        yield Finding("ok", "ffmpeg", found)
    else:
        try:
            import imageio_ffmpeg
            yield Finding("ok", "ffmpeg", f"imageio-ffmpeg's, lent to AudioCraft: {imageio_ffmpeg.get_ffmpeg_exe()}")
        except (ImportError, RuntimeError) as error:
            yield Finding("problem", "ffmpeg", f"none ({describe(error)}); AudioCraft writes audio with it",
                          "pip install imageio-ffmpeg, or install ffmpeg")
    missing = [name for name in ("srun", "sbatch") if not shutil.which(name)]
    yield Finding("note" if missing else "ok", "SLURM",
                  f"no {' and no '.join(missing)} on PATH" if missing else f"srun and sbatch in {shutil.which('srun')}",
                  "only needed to submit to a cluster; `dora run` trains on this machine" if missing else "")


def folders() -> Iterator[Finding]:
    """Where runs and made data go."""
    yield _folder("cache folder", environment.cache_dir(), "MAGNET_CACHE")
    import logging
    logging.getLogger("audiocraft.environment").setLevel(logging.ERROR)     # it warns of each look at its settings
    environment.register_resolvers()
    environment.point_audiocraft_here()
    from audiocraft.environment import AudioCraftEnvironment
    yield _folder("Dora folder", Path(AudioCraftEnvironment.get_dora_dir()), "AUDIOCRAFT_DORA_DIR")


def _folder(name: str, path: Path, variable: str) -> Finding:
    existing = next(parent for parent in (path.absolute(), *path.absolute().parents) if parent.exists())
    if existing.is_dir() and os.access(existing, os.W_OK):
        return Finding("ok", name, f"{path}{'' if path.exists() else ' (made when it is needed)'}")
    return Finding("problem", name, f"{path} cannot be written", f"set {variable} to a folder that can")


def models() -> Iterator[Finding]:
    """What can be used without a download."""
    zoo = environment.PACKAGE / "models" / "bundled"
    here = sorted(path for path in zoo.iterdir() if path.is_dir() and path.name[0] != "_") if zoo.is_dir() else []
    for folder in here:
        size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
        yield Finding("ok", f"//bundled/{folder.name}", f"{size / 1e6:.1f} MB")
    for name in sorted(set(BUNDLED) - {path.name for path in here}):
        yield Finding("problem", f"//bundled/{name}", f"not in {zoo}", "install the plugin anew")
    yield _t5()


def _t5() -> Finding:
    """T5, the text encoder of the published models."""
    remedy = "only the published models need it (conditioner=text2music); the first use fetches it"
    try:
        from huggingface_hub import try_to_load_from_cache
    except ImportError as error:
        return Finding("note", "T5 text encoder", f"cannot look: {describe(error)}", remedy)
    for repo in ("t5-base", "google-t5/t5-base"):
        files = [try_to_load_from_cache(repo, name) for name in ("model.safetensors", "pytorch_model.bin")]
        found = next((file for file in files if isinstance(file, str)), None)
        if found:
            return Finding("ok", "T5 text encoder", found)
    return Finding("note", "T5 text encoder", "not on this machine", remedy)


CHECKS: dict[str, Check] = {"Versions": versions, "Devices": devices, "Attention, as auto chooses": attention,
                            "Tools": tools, "Models": models, "AudioCraft": imports, "Folders": folders}


def examine(checks: tp.Mapping[str, Check] | None = None, out: tp.TextIO | None = None) -> int:
    """Run the checks and print each finding as it comes.

    Args:
        checks: title to check; all of them if left out.
        out: where to print; standard output if left out.
    Returns:
        1 if there was a problem, else 0.
    """
    counts = dict.fromkeys(STATES, 0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for title, check in (CHECKS if checks is None else checks).items():
            print(f"\n{title}", file=out, flush=True)
            for finding in _survive(check):
                counts[finding.state] += 1
                print(f"  {finding.state:<8} {finding.name:<23} {finding.text}", file=out, flush=True)
                if finding.remedy:
                    print(f"  {'':<8} {'':<23} -> {finding.remedy}", file=out, flush=True)
    print("\nProblems: {problem}, notes: {note}, fine: {ok}".format(**counts), file=out)
    return 1 if counts["problem"] else 0


def _survive(check: Check) -> Iterator[Finding]:
    """The findings of a check; its failure is one of them. A broken install fails in any way it likes."""
    try:
        yield from check()
    except Exception as error:
        text = f"{type(error).__name__}: {describe(error)}"
        yield Finding("problem", check.__name__, text, "install anew what it names")
