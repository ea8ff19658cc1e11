"""New processes that have AudioCraft imported already: they are forked from a server that has imported it once."""
import contextlib
import multiprocessing
import os
import subprocess
import sys
import tempfile
import time
import traceback
import typing as tp
from pathlib import Path

from magnet_plugin import environment

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["tests.helpers.rank_group", "magnet_plugin.train"])
ROOT = Path(__file__).parents[2]


def call(function: tp.Callable, *arguments: tp.Any, env: tp.Mapping[str, str], timeout: float = 300) -> str:
    """Call an importable function in a new process. Return what it printed; its exceptions fail the test."""
    with tempfile.TemporaryDirectory() as name:
        output = Path(name) / "output"
        process = start(function, *arguments, env=env, output=output)
        process.join(timeout)
        if process.is_alive():
            process.kill()
        assert process.exitcode == 0, output.read_text()[-3000:]
        return output.read_text()


def start(function: tp.Callable, *arguments: tp.Any, env: tp.Mapping[str, str], output: Path, cwd: Path = ROOT) -> tp.Any:
    """Start a new process that calls an importable function and writes stdout and stderr to a file."""
    process = CONTEXT.Process(target=_call, args=(function, arguments, dict(env), str(output), str(cwd)))
    process.start()
    return process


def _call(function: tp.Callable, arguments: tuple, env: dict[str, str], output: str, cwd: str) -> None:
    os.environ.clear()
    os.environ.update(env)
    environment.point_audiocraft_here()
    environment.ensure_ffmpeg()
    os.chdir(cwd)
    file = os.open(output, os.O_CREAT | os.O_WRONLY | os.O_APPEND)
    os.dup2(file, 1)
    os.dup2(file, 2)
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(line_buffering=True)                     # type: ignore[union-attr]
    try:
        function(*arguments)
    except Exception:
        traceback.print_exc()
        sys.exit(1)


def _dora(*arguments: str) -> None:
    from dora.__main__ import main
    sys.argv = ["dora", *arguments]
    with_dora_dir(main)


def dora(*arguments: str, env: tp.Mapping[str, str], check: bool = True, timeout: float = 300
         ) -> subprocess.CompletedProcess:
    """Run `dora ARGUMENTS` in a new process. Its stdout and stderr are `stdout` of the result."""
    with started_dora(*arguments, env=env) as (process, output):
        process.join(timeout)
        text = output.read_text()
        assert not process.is_alive(), text[-3000:]
    assert not check or process.exitcode == 0, text[-3000:]
    return subprocess.CompletedProcess(arguments, process.exitcode, text)


@contextlib.contextmanager
def started_dora(*arguments: str, env: tp.Mapping[str, str]) -> tp.Iterator[tuple[tp.Any, Path]]:
    """Start `dora ARGUMENTS` in a new process. Gives the process and the file that it writes to, and kills it at the end."""
    with tempfile.TemporaryDirectory() as name:
        output = Path(name) / "output"
        process = start(_dora, *arguments, env=env, output=output)
        try:
            yield process, output
        finally:
            process.kill()
            process.join()


def wait_for(words: str, process: tp.Any, output: Path, timeout: float = 120) -> None:
    """Wait until a process has written these words."""
    end = time.monotonic() + timeout
    while not (output.exists() and words in output.read_text()):
        assert process.is_alive() and time.monotonic() < end, output.read_text()[-3000:]
        time.sleep(0.02)


def with_dora_dir(function: tp.Callable, *arguments: tp.Any) -> None:
    """Call a function with AUDIOCRAFT_DORA_DIR as the folder of Dora's runs."""
    from magnet_plugin import train
    train.main.dora.dir = Path(os.environ["AUDIOCRAFT_DORA_DIR"])   # it was read when the module was imported
    function(*arguments)
