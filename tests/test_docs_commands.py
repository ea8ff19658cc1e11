"""Shell blocks of README and docs: every command that they show is one that exists, with options that it takes."""
import re
import shlex
from pathlib import Path

import pytest

from magnet_plugin.cli.main import parser

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def commands(page: Path) -> list[list[str]]:
    """Words of each command in the shell blocks of a page; the parts of a pipe are commands of their own."""
    found: list[list[str]] = []
    for block in re.findall(r"```bash\n(.*?)```", page.read_text(), re.S):
        for line in block.replace("\\\n", " ").splitlines():
            words: list[str] = []
            for word in [*shlex.split(line, comments=True), "|"]:
                if word in ("|", "&&", ";"):
                    found.append(words)
                    words = []
                elif word != "<" and not (not words and re.fullmatch(r"[A-Z_]+=.*", word)):
                    words.append(word)
    return [words for words in found if words]


def all_commands(program: str) -> list[tuple[str, list[str]]]:
    return [(page.name, words) for page in PAGES for words in commands(page) if words[0] == program]


def name(value: str | list[str]) -> str:
    return value if isinstance(value, str) else " ".join(value)[:60]


@pytest.mark.parametrize("page, words", all_commands("magnet"), ids=name)
def test_magnet_takes_the_arguments(page: str, words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    try:
        parser().parse_args(words[1:])
    except SystemExit as stop:
        assert stop.code == 0, f"{page}: {' '.join(words)}\n{capsys.readouterr().err}"


@pytest.mark.parametrize("page, words", all_commands("dora"), ids=name)
def test_dora_finds_solvers_and_grids(page: str, words: list[str]) -> None:
    for word in words:
        if word.startswith("solver="):
            assert (ROOT / "config" / "solver" / f"{word.removeprefix('solver=')}.yaml").is_file(), f"{page}: {word}"
    if "grid" in words and words[-1] != "...":
        names = [word for word in words[words.index("grid") + 1:] if not word.startswith("-")]
        for grid in names:
            module = ROOT / "grids" / "magnet" / f"{grid.split('.')[-1]}.py"
            assert module.is_file() and grid.startswith("magnet."), f"{page}: {grid}"


def test_the_pages_show_commands() -> None:
    assert len(all_commands("magnet")) > 30 and len(all_commands("dora")) > 10
