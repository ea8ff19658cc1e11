"""One table of bad command lines: each `magnet` command refuses them in one line that names what is wrong."""
import shlex
from pathlib import Path

import numpy as np
import pytest
import soundfile

from magnet_plugin.cli import main

from .helpers.bad_inputs import Bad, check_message, table

ROWS = [
    Bad("generate", "nothing to generate: give texts"),
    *(Bad(f"generate a --{option} x", f"argument --{option}: 'x' is not a number; give one such as 1.5")
      for option in ("duration", "temperature", "top-p", "max-cfg-coef", "bpm", "rescorer-weight", "prompt-seconds")),
    *(Bad(f"generate a --{option} 1.5", f"argument --{option}: '1.5' is not an integer; give a whole number")
      for option in ("seed", "top-k")),
    *(Bad(f"generate a --duration {value}", f"--duration {value} must be above 0 seconds")
      for value in ("nan", "inf", "0", "-1")),
    Bad("generate a --n 0", "argument --n: 0 is too small; give 1 or more"),
    Bad("generate a --temperature inf", "temperature (temp in configs)=inf must be a finite number"),
    Bad("generate a --max-cfg-coef nan", "max_cfg_coef=nan must be a finite number"),
    Bad("generate a --top-k -1", "top_k=-1 must be at least 0"),
    Bad("generate a --decoding-steps 1.9,1,1,1", "'1.9,1,1,1': write one number per codebook, as in 20,10,10,10"),
    Bad("generate a --decoding-steps 1000000000,1,1,1", "every codebook needs 1 to 10000 steps"),
    Bad("generate a --engine x", "argument --engine: invalid choice: 'x' (choose from"),
    Bad("generate a --rescorer ./nowhere", "--rescorer ./nowhere: no such file or folder"),
    Bad("generate a --prompt-model ./nowhere", "--prompt-model ./nowhere: no such file or folder"),
    Bad("generate a --model ./nowhere", "--model ./nowhere: no such file or folder; give a release folder"),
    Bad("generate a --model //bundled/nothing", "//bundled/nothing: no such bundled model; available: codec-16khz"),
    Bad("generate a --device toaster", "--device toaster: this is not a supported device; give cpu"),
    Bad("generate a --key H", "key='H' must be a tonic and a mode, such as 'D major'"),
    Bad("generate a --at nan b", "--at nan b: give seconds, at least 0, and a text"),
    Bad("generate --unconditional 1000000000", "--unconditional 1000000000 must be at least 1 and at most 1000000"),
    Bad("generate a --continue-from nan.wav", "--continue-from nan.wav: the file has samples that are infinite or"),
    Bad("generate a --continue-from a.wav --prompt-seconds inf", "--prompt-seconds inf must be above 0, and finite"),
    Bad("generate a --continue-from text.wav", "--continue-from text.wav: soundfile cannot read this file as audio"),
    Bad("generate --texts wrong.csv", "--texts wrong.csv, line 2: duration=nan must be a finite number"),
    Bad("generate --settings wrong.json", "duration='x' must be a finite number"),
    Bad("generate a --out a.wav/x", "--out a.wav/x: "),
    Bad("generate a b --out x.wav", "--out x.wav names one file, but there are 2 clips; give a folder"),
    Bad("generate a --nonsense", "unrecognized arguments: --nonsense"),
    Bad("inpaint", "give AUDIO, the recording to edit"),
    Bad("inpaint a.wav --span x 1", "argument --span: 'x' is not a number"),
    Bad("inpaint a.wav --span nan 1", "--span nan 1 must lie within the recording, which lasts 1.00 s"),
    Bad("inpaint nan.wav --span 0 1", "AUDIO nan.wav: the file has samples that are infinite or"),
    Bad("extend a.wav --after inf", "--before 0 and --after inf must be at least 0 seconds, and one of them above 0"),
    Bad("vary a.wav --strength nan", "--strength nan must be from 0 to 1"),
    Bad("vary a.wav --preset huge", "argument --preset: invalid choice: 'huge'"),
    Bad("loop a.wav --seam 5", "--seam 5 must be above 0 and at most half of the recording, which lasts 1.00 s"),
    Bad("evaluate m --clips 2", "argument --clips: 2 is too small; give 3 or more"),
    Bad("evaluate m --data nowhere", "--data nowhere is not a folder; give that of a data set"),
    Bad("evaluate ./nowhere", "MODEL ./nowhere: no such file or folder"),
    Bad("evaluate m --json a.wav/x.json", "--json a.wav: "),
    Bad("export x", "the following arguments are required: --out"),
    Bad("export x --out y --private", "--private needs --push OWNER/NAME"),
    Bad("export x --out a.wav", "--out a.wav: "),
    Bad("inspect //bundled/nothing", "//bundled/nothing: no such bundled model; available:"),
    Bad("inspect dir", "dir holds none of checkpoint.th"),
    Bad("data scan dir --out o --split train=x", "'train=x' is not NAME=SHARE; example: --split train=.9 valid=.1"),
    Bad("data scan dir --out o --split train=nan", "splits={'train': nan} is not valid; give each split a share above 0"),
    Bad("data scan dir --out o --min-duration nan", "argument --min-duration: nan is not valid; give a number above 0"),
    Bad("data scan a.wav --out o", "a.wav is not a text file in UTF-8; give a folder of audio or a CSV file"),
    Bad("data check dir --segment-duration nan", "argument --segment-duration: nan is not valid; give a number above 0"),
    Bad("data check nowhere", "nowhere does not exist; give a folder of audio"),
    Bad("data folk --out f --clips x", "argument --clips: 'x' is not an integer; give a whole number"),
    Bad("data folk --out f --duration nan", "duration=nan s is out of range; use 0.5 to 600 seconds"),
    Bad("data folk --out a.wav", "a.wav is a file; choose a folder"),
    Bad("bench table --out a.wav", "argument --out: folder a.wav: "),
    Bad("bench codec =x", "=x has no label; give LABEL=NAME"),
    Bad("bench codec a=x a=y", "a=x a=y: two codecs have the same label; give each another LABEL"),
    Bad("bench scale --duration nan", "argument --duration: nan is not valid; give a number above 0"),
    Bad("bench scale --batch 0", "argument --batch: 0 is too small; give 1 or more"),
    Bad("bench scale --gpus 9", "--gpus 9: choose 1 to 8, or a multiple of 8 (whole nodes)"),
    Bad("bench scale --efficiency nan", "--efficiency nan is a share of the peak: choose one above 0, at most 1"),
    Bad("bench scale --doc a.wav", "--doc a.wav: the file must contain the lines"),
    Bad("bench quality --table nothing", "argument --table: invalid choice: 'nothing'"),
    Bad("doctor x", "unrecognized arguments: x"),
    Bad("grid-report nothing", "there is no grid 'nothing'; available grids: magnet.ablate_context"),
    Bad("grid-report magnet.ablate_span --out a.wav", "--out a.wav: "),
    Bad("app --port x", "argument --port: 'x' is not an integer; give a whole number"),
    Bad("app --port 99999", "--host 127.0.0.1 --port 99999: cannot listen there"),
    Bad("app --host ''", "--host must not be empty; give 127.0.0.1"),
    Bad("app --max-seconds nan", "--max-seconds nan must be above 0"),
    Bad("demo --model ./nowhere --out d", "--model ./nowhere does not exist; give a release folder"),
    Bad("completion fish", "argument shell: invalid choice: 'fish'"),
    Bad("runs --dir nowhere", "--dir nowhere is not a folder; give the folder that holds xps/"),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Files of the rows."""
    folder = tmp_path_factory.mktemp("bad")
    (folder / "dir").mkdir()
    soundfile.write(folder / "a.wav", np.full((16000, 1), 0.9), 16000)
    soundfile.write(folder / "nan.wav", np.full((16000, 1), np.nan), 16000, "FLOAT")
    (folder / "text.wav").write_text("this is no audio" * 9)
    (folder / "wrong.csv").write_text("text,duration\na,nan\n")
    (folder / "wrong.json").write_text('{"command": "generate", "text": "a", "settings": {"duration": "x"}}')
    return folder


@table(ROWS)
def test_a_bad_command_line_is_refused_in_one_line(inputs: str, words: str, folder: Path, monkeypatch: pytest.MonkeyPatch,
                                                   capsys: pytest.CaptureFixture[str]) -> None:
    if inputs.startswith("app"):
        pytest.importorskip("gradio")
    monkeypatch.chdir(folder)
    before = sorted(folder.rglob("*"))
    try:
        status = main.main(shlex.split(inputs))
    except SystemExit as refused:                       # By argparse, below the usage.
        status = refused.code                           # type: ignore[assignment]
    out, err = capsys.readouterr()
    assert status in (1, 2) and out == ""
    lines = [line for line in err.splitlines() if "error:" in line]
    assert len(lines) == 1 and lines[0] == err.splitlines()[-1], err
    check_message(lines[0], words)
    assert sorted(folder.rglob("*")) == before, "nothing may be written"


def test_every_command_has_a_row() -> None:
    parsers = next(action.choices for action in main.parser()._actions if action.dest == "command")
    assert set(parsers) <= {shlex.split(row.inputs)[0] for row in ROWS}     # type: ignore[arg-type]
