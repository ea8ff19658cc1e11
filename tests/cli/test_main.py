"""The `magnet` command: help, errors and tracebacks."""
import subprocess
import sys

import pytest

from magnet_plugin.cli import doctor, main


@pytest.mark.parametrize("args", [["--help"], ["generate", "--help"], ["data", "folk", "--help"], ["demo", "--help"],
                                  ["grid-report", "--help"], ["vary", "--help"], ["data", "check", "--help"],
                                  ["runs", "--help"], ["inspect", "--help"]])
def test_help_imports_nothing_heavy(args):
    code = ("import sys\nfrom magnet_plugin.cli.main import main\ntry:\n    main(sys.argv[1:])\nexcept SystemExit as done:\n"
            "    assert done.code == 0\n"
            "heavy = {'torch', 'audiocraft', 'numpy', 'matplotlib', 'omegaconf'} & sys.modules.keys()\n"
            "assert not heavy, heavy")
    done = subprocess.run([sys.executable, "-c", code, *args], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "usage: magnet" in done.stdout


def test_every_command_parses_its_arguments():
    commands = {"app": ["--port", "0"],
                "generate": ["x"], "inpaint": ["x.wav", "--span", "1", "2"], "extend": ["x.wav", "--after", "1"],
                "vary": ["x.wav", "--preset", "small"], "loop": ["x.wav"], "export": ["x", "--out", "y"], "doctor": [],
                "demo": [], "data": ["folk", "--out", "x"], "bench": ["table"], "grid-report": ["magnet.ablate_span"],
                "completion": ["bash"], "runs": [],
                "inspect": ["x"]}
    for name, rest in commands.items():
        args = main.parser().parse_args([name, *rest])
        assert args.command == name and args.run.__module__.startswith("magnet_plugin.cli."), name


@pytest.mark.parametrize("args, said", [
    (["generate"], "nothing to generate"),
    (["generate", "x", "--unconditional", "2"], "not both"),
    (["generate", "--unconditional", "0"], "--unconditional 0 must be at least 1"),
    (["generate", "x", "--prompt-seconds", "1"], "needs --continue-from"),
    (["generate", "x", "--device", "toaster"],
     "--device toaster: this is not a supported device; give cpu, cuda, mps or cuda:N"),
])
def test_error_is_one_line_on_stderr(args, said, capsys):
    assert main.main(args) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("magnet: error: ") and captured.err.count("\n") == 1 and captured.err.endswith("\n")
    assert said in captured.err


def test_debug_and_unexpected_errors_keep_their_traceback(monkeypatch, capsys):
    with pytest.raises(ValueError, match="nothing to generate"):
        main.main(["generate", "--debug"])
    with pytest.raises(ValueError, match="nothing to generate"):
        main.main(["--debug", "generate"])

    def broken(checks=None, out=None):
        raise KeyError("a fault of the program")
    monkeypatch.setattr(doctor, "examine", broken)
    with pytest.raises(KeyError):
        main.main(["doctor"])
    assert "magnet: error" not in capsys.readouterr().err
