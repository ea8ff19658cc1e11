"""Install the package as README says, in new environments, and run what README shows next.

    python -m tools.check_install                            # every combination that this host can try
    python -m tools.check_install --python 3.12 --with uv --from wheel
    python -m tools.check_install --with uv --from wheel --torch 2.7.0 --torch 2.10.0 --audiocraft PATH --name support

Each combination of Python, installer, wheel or source, torch and AudioCraft gets a new environment in a temporary folder and
a clone of the committed state. The record and its table are written to docs/results/install.json and install.md.
"""
from __future__ import annotations

import argparse
import datetime
import itertools
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import typing as tp
from pathlib import Path

ROOT = Path(__file__).parents[1]
PYTHONS = ("3.11", "3.12")
INSTALLERS = ("pip", "uv")
SOURCES = ("wheel", "source")
PACKAGES = ("torch", "torchaudio", "xformers", "audiocraft", "numpy", "transformers", "spacy", "av")


def interpreter(version: str) -> str | None:
    """Return the path of a Python of this version, from PATH or pyenv."""
    found = sorted(Path("~/.pyenv/versions").expanduser().glob(f"{version}.*/bin/python"))
    return str(found[-1]) if found else shutil.which(f"python{version}")


def readme_commands() -> list[list[str]]:
    """Return the words of the install commands of README's first shell block."""
    (block, *_) = re.findall(r"```bash\n(.*?)```", (ROOT / "README.md").read_text(), re.S)
    return [line.replace("'", "").split() for line in block.splitlines()]


class Environment:
    """A new environment.

    Args:
        folder: where it and the clone are created.
        python: path of its interpreter.
        installer: `pip` or `uv`.
    """

    def __init__(self, folder: Path, python: str, installer: str) -> None:
        self.bin, self.clone, self.installer = folder / "env" / "bin", folder / "clone", installer
        subprocess.run(["git", "clone", "--quiet", str(ROOT), str(self.clone)], check=True)
        subprocess.run([python, "-m", "venv", str(folder / "env")], check=True)
        self.variables = {**os.environ, "VIRTUAL_ENV": str(folder / "env"), "PATH": f"{self.bin}:{os.environ['PATH']}",
                          "MAGNET_CACHE": str(folder / "cache"), "AUDIOCRAFT_DORA_DIR": str(folder / "runs")}
        self.variables.pop("PYTHONPATH", None)

    def run(self, *words: str) -> str:
        """Run a command in the clone.

        Raises:
            RuntimeError: it failed; the message ends with its output.
        """
        done = subprocess.run(words, cwd=self.clone, env=self.variables, text=True, capture_output=True)
        if done.returncode:
            raise RuntimeError(f"{' '.join(words)}: exit status {done.returncode}\n{(done.stdout + done.stderr)[-2000:]}")
        return done.stdout

    def install(self, source: str, torch: str, audiocraft: str) -> None:
        """Run README's install commands.

        Args:
            source: `wheel` installs a wheel instead of the folder.
            torch: version; empty installs that of README's constraints.
            audiocraft: path that replaces README's `audiocraft<1.5`, if not empty.
        """
        target = "."
        if source == "wheel":
            self.run("pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", "dist", ".")
            target = str(next((self.clone / "dist").glob("*.whl")))
        for words in readme_commands():
            command = ["uv", *words] if self.installer == "uv" else words
            if "." in words and torch:                  # instead of README's constraints
                command = [*command[:command.index("-c")], target, f"torch=={torch}", f"torchaudio<={torch}"]
            self.run(*[target if word == "." else audiocraft if audiocraft and word.startswith("audiocraft") else word
                       for word in command])
        if audiocraft:                                      # The public head imports it, the release does not.
            self.run(*(["uv"] if self.installer == "uv" else []), "pip", "install", "torchdiffeq")


def check(version: str, installer: str, source: str, torch: str = "", audiocraft: str = "") -> dict[str, tp.Any]:
    """Try one combination. Returns its row: seconds, versions, and the error if a step failed."""
    row: dict[str, tp.Any] = {"python": version, "installer": installer, "from": source,
                              "asked": {"torch": torch, "audiocraft": audiocraft}}
    python, started = interpreter(version), time.perf_counter()
    if python is None or (installer == "uv" and shutil.which("uv") is None):
        return {**row, "result": "not tried", "error": f"this host has no {'uv' if python else f'Python {version}'}"}
    with tempfile.TemporaryDirectory() as folder:
        try:
            new = Environment(Path(folder), python, installer)
            new.install(source, torch, audiocraft)
            row["install_seconds"] = round(time.perf_counter() - started, 1)
            new.run("magnet", "doctor")
            new.run("magnet", "generate", "a fast reel in D major on the violin", "--seed", "1")
            new.run("magnet", "inpaint", next(map(str, (new.clone / "outputs").glob("*.wav"))), "--span", "1", "2")
            program = "import importlib.metadata as m, json, platform, sys; print(json.dumps({'python': " \
                      "platform.python_version(), **{name: m.version(name) for name in sys.argv[1:]}}))"
            row["versions"] = json.loads(new.run("python", "-c", program, *PACKAGES).splitlines()[-1])
            row["result"] = "works"
        except (RuntimeError, subprocess.CalledProcessError, StopIteration) as error:
            row |= {"result": "fails", "error": str(error)}
    return row


def table(record: dict[str, tp.Any]) -> str:
    """Return the table of a record as Markdown."""
    lines = ["# Installation in new environments", "",
             f"`{record['command']}`, {record['date']}, commit {record['commit']}. *Works*: README's install commands, "
             "`magnet doctor` without a problem, `magnet generate` and `magnet inpaint`.", "",
             "| Python | installer | from | result | seconds to install | torch | xformers | audiocraft |",
             "| --- | --- | --- | --- | ---: | --- | --- | --- |"]
    for row in record["rows"]:
        versions = row.get("versions", {})
        asked = row.get("asked", {})
        cells = [versions.get("python", row["python"]), row["installer"], row["from"], row["result"],
                 row.get("install_seconds", "–"),
                 *(versions.get(name) or asked.get(name) or "–" for name in ("torch", "xformers", "audiocraft"))]
        lines.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join(lines) + "\n"


def main() -> int:
    """Check the combinations, write the record, and return 1 if one fails."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--python", choices=PYTHONS, action="append")
    parser.add_argument("--with", dest="installer", choices=INSTALLERS, action="append")
    parser.add_argument("--from", dest="source", choices=SOURCES, action="append")
    parser.add_argument("--torch", action="append", metavar="VERSION", help="instead of README's constraints")
    parser.add_argument("--audiocraft", action="append", metavar="PATH",
                        help="folder of AudioCraft's source, or `release` for README's (default)")
    parser.add_argument("--name", default="install", help="name of the record (default: install)")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "results")
    args = parser.parse_args()
    head = subprocess.run(["git", "rev-parse", "--short=10", "HEAD"], cwd=ROOT, text=True, capture_output=True).stdout
    command = " ".join(["python -m tools.check_install", *sys.argv[1:]])
    record: dict[str, tp.Any] = {"command": command, "commit": head.strip(),
                                 "date": datetime.date.today().isoformat(), "rows": []}
    audiocrafts = ["" if path == "release" else path for path in args.audiocraft or ["release"]]
    for combination in itertools.product(args.python or PYTHONS, args.installer or INSTALLERS, args.source or SOURCES,
                                         args.torch or [""], audiocrafts):
        row = check(*combination)
        print(*combination, row["result"], row.get("error", ""), flush=True)
        record["rows"].append(row)
        (args.out / f"{args.name}.json").write_text(json.dumps(record, indent=1) + "\n")
        (args.out / f"{args.name}.md").write_text(table(record))
    return int(any(row["result"] == "fails" for row in record["rows"]))


if __name__ == "__main__":
    sys.exit(main())
