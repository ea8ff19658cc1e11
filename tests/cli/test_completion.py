"""Completion in a shell: the script is run by bash."""
import shutil
import subprocess

import pytest

from magnet_plugin.cli import completion, main


@pytest.mark.skipif(shutil.which("bash") is None, reason="no bash on this machine")
@pytest.mark.parametrize("line, expected", [
    ("magnet ge", ["generate"]), ("magnet generate --eng", ["--engine"]), ("magnet generate x --preset d", ["draft"]),
    ("magnet vary song.wav --preset ti", ["timbre"]), ("magnet data fo", ["folk"]), ("magnet completion z", ["zsh"]),
    ("magnet data folk --ou", ["--out"]), ("magnet generate --format ", ["wav", "flac", "ogg", "mp3"]),
    ("magnet generate son", [])])
def test_bash_completes(line: str, expected: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main.main(["completion", "bash"]) == 0
    words = line.split() + ([""] if line.endswith(" ") else [])
    quoted = " ".join(f"'{word}'" for word in words)
    code = (f"{capsys.readouterr().out}\nCOMP_WORDS=({quoted}); COMP_CWORD={len(words) - 1}; _magnet\n"
            'printf "%s\\n" "${COMPREPLY[@]}"')
    done = subprocess.run(["bash", "-u", "-c", code], capture_output=True, text=True)
    assert done.stderr == "" and done.stdout.split() == expected


def test_zsh_uses_its_emulation_of_bash(capsys: pytest.CaptureFixture[str]) -> None:
    for shell in completion.SHELLS:
        assert main.main(["completion", shell]) == 0
        assert ("bashcompinit" in capsys.readouterr().out) == (shell == "zsh")
