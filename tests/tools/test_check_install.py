"""The check of installations runs what README says, and its table tells what was not tried."""
import typing as tp

import pytest

from tools import check_install


def test_the_commands_are_those_of_readme() -> None:
    first, second = check_install.readme_commands()
    assert first == ["pip", "install", "--no-deps", "audiocraft<1.5", "tinysoundfont"]
    assert second[:2] == ["pip", "install"] and second[-1] == "."


def test_a_python_that_the_host_lacks_is_not_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(check_install, "interpreter", lambda version: None)
    row = check_install.check("3.12", "pip", "wheel")
    assert row["result"] == "not tried" and "no Python 3.12" in row["error"]


def test_the_table_shows_every_row_also_those_that_fail() -> None:
    rows: list[dict[str, tp.Any]] = [
        {"python": "3.11", "installer": "pip", "from": "wheel", "result": "works", "install_seconds": 12.5,
         "versions": {"python": "3.11.7", "torch": "2.10.0", "xformers": "0.0.35", "audiocraft": "1.3.0"}},
        {"python": "3.12", "installer": "uv", "from": "source", "result": "fails", "error": "no"}]
    lines = check_install.table({"command": "c", "date": "d", "commit": "e", "rows": rows}).splitlines()
    assert lines[-2] == "| 3.11.7 | pip | wheel | works | 12.5 | 2.10.0 | 0.0.35 | 1.3.0 |"
    assert lines[-1] == "| 3.12 | uv | source | fails | – | – | – | – |"


def test_versions_that_were_asked_for_replace_those_of_readme(monkeypatch: pytest.MonkeyPatch) -> None:
    """And a combination that cannot be installed shows them in the table."""
    new = object.__new__(check_install.Environment)
    new.installer = "uv"
    commands: list[tuple[str, ...]] = []
    monkeypatch.setattr(new, "run", lambda *words: commands.append(words), raising=False)
    new.install("source", "2.7.0", "/audiocraft")
    assert commands[0] == ("uv", "pip", "install", "--no-deps", "/audiocraft", "tinysoundfont")
    assert commands[1] == ("uv", "pip", "install", ".", "torch==2.7.0", "torchaudio<=2.7.0")
    row = {"python": "3.12", "installer": "uv", "from": "source", "result": "fails", "error": "no",
           "asked": {"torch": "2.7.0", "audiocraft": "/audiocraft"}}
    line = check_install.table({"command": "c", "date": "d", "commit": "e", "rows": [row]}).splitlines()[-1]
    assert line == "| 3.12 | uv | source | fails | – | 2.7.0 | – | /audiocraft |"
