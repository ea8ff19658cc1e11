"""`magnet inpaint`, `extend`, `vary` and `loop`: arguments, masks and files."""
import json
import subprocess
import sys
import types
import typing as tp
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from magnet_plugin.cli import extend, inpaint, loop, main, model_options, recordings, vary

RATE = 8000


def recording(path: Path, seconds: float = 2.0, subtype: str = "PCM_16") -> Path:
    """A recording whose first sample is at full scale."""
    wav = np.sin(np.arange(round(seconds * RATE)) / 9)
    wav[0] = -1.0
    soundfile.write(path, np.stack([wav, wav / 2], axis=1), RATE, subtype=subtype)
    return path


class FakeModel:
    """Returns the recording, with noise in its second half, from every method; `calls` is what was asked for."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, dict[str, tp.Any]]] = []

    def __getattr__(self, method: str) -> tp.Any:
        def edit(audio: torch.Tensor, sample_rate: int, **arguments: tp.Any) -> tp.Any:
            self.calls.append((method, arguments))
            edited = audio.clone()[None]
            edited[..., edited.shape[-1] // 2:] = 1.5
            tokens = torch.full((1, 4, 5), arguments["seed"])
            return types.SimpleNamespace(audio=edited, sample_rate=sample_rate, tokens=tokens, spans=[[(1.0, 2.0)]],
                                         settings={"model": "itself", "temp": 2.0, "guidance_interval": (0.0, 1.0)})
        return edit


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch) -> FakeModel:
    fake = FakeModel()
    monkeypatch.setattr(model_options, "load", lambda args: fake)
    return fake


@pytest.mark.parametrize("args, asked", [
    (["inpaint", "--span", "0.5", "1", "--span", "1.5", "2"], {"spans": [[0.5, 1.0], [1.5, 2.0]]}),
    (["extend", "--after", "5"], {"before": 0.0, "after": 5.0}), (["vary", "--strength", "0.4"], {"strength": 0.4}),
    (["vary", "--preset", "medium"], {"preset": "medium"}), (["loop"], {"seam": 2.0})])
def test_arguments_reach_the_model(args, asked, model, tmp_path, capsys):
    source = recording(tmp_path / "song.wav", 4.0)
    more = ["--text", "a reel", "--negative", "an organ", "--seed", "7", "--bpm", "90", "--key", "Bb dorian"]
    assert main.main([args[0], str(source), *args[1:], *more, "--out", str(tmp_path / "out")]) == 0
    ((method, arguments),) = model.calls
    assert method == args[0]
    texts = {"descriptions": ["a reel in B flat dorian at 90 bpm"], "negative_descriptions": "an organ"}
    assert arguments == {**asked, **texts, "seed": 7, "progress": False}
    written = Path(capsys.readouterr().out.strip())
    assert written == tmp_path / "out" / f"song-{method}-001.wav"
    metadata = json.loads(written.with_suffix(".json").read_text())
    expected = {"command": method, "arguments": asked, "text": "a reel", "negative": "an organ", "seed": 7, "bpm": 90.0,
                "source": str(source)}
    assert {name: metadata[name] for name in expected} == expected and metadata["settings"]["temp"] == 2.0


@pytest.mark.parametrize("subtype", ["PCM_16", "PCM_24", "FLOAT"])
def test_samples_of_the_recording_stay_unchanged_in_the_file(subtype, model, tmp_path):
    source, out = recording(tmp_path / "song.wav", subtype=subtype), tmp_path / "new" / "edited.wav"
    assert main.main(["loop", str(source), "--seam", "0.5", "--out", str(out)]) == 0
    before, after = (soundfile.read(path, dtype="float64")[0] for path in (source, out))
    assert soundfile.info(out).subtype == subtype and len(before) == len(after)
    assert (before[:RATE] == after[:RATE]).all() and (after[RATE:] >= 1 - 2 ** -15).all()
    assert model.calls[0][1]["descriptions"] is None


def test_arguments_are_checked_before_torch_is_imported(tmp_path):
    recording(tmp_path / "song.wav")
    cases = {"inpaint song.wav --span 1 5": "--span 1 5 must lie within the recording, which lasts 2.00 s",
             "inpaint song.wav --span 1 1": "end after its start", "inpaint song.wav": "give --span START END",
             "inpaint --span 1 2": "give AUDIO", "vary song.wav": "give --strength X or --preset NAME",
             "extend song.wav": "one of them above 0",
             "extend song.wav --after nan": "one of them above 0", "vary song.wav --strength 1.5": "must be from 0 to 1",
             "loop song.wav --seam 1.5": "at most half of the recording", "loop song.wav --negative x": "needs --text",
             "loop song.wav --bpm 90": "--bpm: needs a text", "loop song.wav --text x --key H": "key='H' must be",
             "loop song.wav --top-p 2": "top_p=2.0", "loop song.wav --out ./song.wav": "is the recording itself"}
    code = ("import sys\nfrom magnet_plugin.cli import main\n"
            "for args in sys.argv[1:]:\n    assert main.main(args.split()) == 2, args\n"
            "assert not {'torch', 'audiocraft'} & sys.modules.keys()")
    done = subprocess.run([sys.executable, "-c", code, *cases], capture_output=True, text=True, cwd=tmp_path)
    lines = done.stderr.splitlines()
    assert done.returncode == 0 and len(lines) == len(cases), done.stderr
    assert all(line.startswith("magnet: error: ") and said in line for line, said in zip(lines, cases.values())), lines


def test_an_edit_is_made_again_from_its_file(model, tmp_path, capsys):
    out = ["--out", str(tmp_path / "out")]

    def run(*args: str) -> Path:
        assert main.main([*args, *out]) == 0
        return Path(capsys.readouterr().out.splitlines()[-1])
    source = str(recording(tmp_path / "song.wav"))
    first = run("vary", source, "--preset", "small", "--text", "a reel", "--key", "D major", "--seed", "3",
                "--format", "flac")
    for file in (first, first.with_suffix(".json")):
        run("vary", "--settings", str(file))
        assert model.calls[-1] == model.calls[0]
    run("vary", "--settings", str(first), "--strength", "0.5", "--seed", "4")
    method, arguments = model.calls[-1]
    assert (arguments["strength"], arguments["seed"], arguments["descriptions"]) == (0.5, 4, ["a reel in D major"])
    assert "preset" not in arguments
    assert main.main(["loop", "--settings", str(first)]) == 2
    assert "this clip was made by magnet vary" in capsys.readouterr().err


def test_other_tokens_than_those_of_the_file_are_reported(model, tmp_path, capsys):
    source, out = str(recording(tmp_path / "song.wav")), ["--out", str(tmp_path / "edited.wav")]
    assert main.main(["loop", source, "--seam", "1", "--seed", "3", *out]) == 0
    settings = tmp_path / "edited.json"
    before = settings.read_text()
    assert main.main(["loop", "--settings", str(settings), *out]) == 0
    assert "warning" not in capsys.readouterr().err
    settings.write_text(before.replace(json.loads(before)["tokens"], "0"))
    assert main.main(["loop", "--settings", str(settings), "--out", str(tmp_path)]) == 0
    assert "warning: the tokens differ from those of" in capsys.readouterr().err
    assert main.main(["loop", "--settings", str(settings), "--seed", "4", "--out", str(tmp_path)]) == 0   # another clip
    assert "warning" not in capsys.readouterr().err


@pytest.mark.parametrize("key, value, said", [
    ("seed", "x", "seed='x' is not what magnet writes"), ("arguments", {"seam": "x"}, "are not those of magnet loop"),
    ("arguments", {"span": [[1]]}, "at most half of the recording")])
def test_files_that_were_edited_by_hand(key, value, said, model, tmp_path, capsys):
    metadata = {"command": "loop", "source": str(recording(tmp_path / "song.wav")), "settings": {}, key: value}
    (tmp_path / "x.json").write_text(json.dumps(metadata))
    assert main.main(["loop", "--settings", str(tmp_path / "x.json"), "--out", str(tmp_path)]) == 2
    assert said in capsys.readouterr().err


def test_variations_and_an_interrupt(model, tmp_path, capsys, monkeypatch):
    args = ["loop", str(recording(tmp_path / "song.wav")), "--seam", "1", "--n", "3", "--seed", "8", "--out", str(tmp_path)]
    assert main.main(args) == 0
    assert [call[1]["seed"] for call in model.calls] == [8, 9, 10]
    assert len(capsys.readouterr().out.splitlines()) == 3

    def stop(**arguments: tp.Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(model, "loop", lambda *args, seed, **rest: stop() if seed == 9 else FakeModel().loop(
        *args, seed=seed, **rest), raising=False)
    assert main.main(args) == 130
    captured = capsys.readouterr()
    assert captured.err.splitlines()[-1] == "magnet: interrupted; 1 of 3 clips are finished"
    assert Path(captured.out.strip()).is_file()


def test_recordings_that_cannot_be_read(tmp_path, capsys):
    (tmp_path / "text.wav").write_text("no audio")
    soundfile.write(tmp_path / "empty.wav", np.zeros((0, 1)), RATE)
    for name, said in (("none", "no such file"), ("text", "cannot read this file as audio"), ("empty", "contains no audio")):
        assert main.main(["loop", str(tmp_path / f"{name}.wav")]) == 2
        assert said in capsys.readouterr().err


@pytest.mark.parametrize("command, options, rolled", [
    (inpaint, {"span": [[0.31, 0.6], [1.0, 1.13]]}, False), (extend, {"before": 0.5, "after": 0.25}, False),
    (extend, {"before": 0.0, "after": 0.3}, False), (extend, {"before": 0.3, "after": 0.0}, False),
    (vary, {"strength": 0.4, "preset": None}, False), (vary, {"strength": None, "preset": "large"}, False),
    (loop, {"seam": 0.4}, True)])
def test_mask_that_is_shown_is_the_one_that_is_used(command, options, rolled, release_folder, tmp_path):
    from magnet_plugin import MAGNeT
    from magnet_plugin.models.generation import frames
    from magnet_plugin.models.keep_mask import Clip
    model = MAGNeT.get_pretrained(str(release_folder), device="cpu")
    model.set_generation_params(decoding_steps=[1] * model.lm.n_q)
    given = recordings.read("AUDIO", recording(tmp_path / "song.wav", 1.6 if rolled else 1.57))
    method, arguments, mask_of = command.plan(types.SimpleNamespace(**options), given.seconds)
    edit = getattr(model, method)(given.tensor(), RATE, **arguments, seed=0)
    mask, seconds = mask_of(given.seconds, float(model.frame_rate))
    known = edit.known.roll(edit.known.shape[-1] // 2, dims=-1) if rolled else edit.known
    assert torch.equal(mask(Clip(model.lm.n_q, frames(seconds, model.frame_rate), float(model.frame_rate))), known)
    assert 0 < known.float().mean() < 1


@pytest.mark.parametrize("given, used", [
    ("inpaint x.wav", {"temperature": 2.0}), ("inpaint x.wav --preset edit", {"temperature": 1.0}),
    ("vary x.wav --decoding-preset edit --temperature 3", {"temperature": 3.0})])
def test_a_preset_comes_before_the_settings_of_a_file_and_after_options(given, used):
    args = main.parser().parse_args(given.split())
    args.base = {"temperature": 2.0}
    named = types.SimpleNamespace(preset_arguments=lambda name: {"edit": {"temperature": 1.0}}[name])
    assert model_options.arguments(args, named) == used


def test_presets_are_those_of_the_masks():
    from magnet_plugin.models import keep
    assert tuple(keep.PRESETS) == vary.PRESETS


def test_mask_is_printed_without_loading_the_language_model(release_folder, tmp_path, capsys, monkeypatch):
    from magnet_plugin.models import loaders
    monkeypatch.delattr(loaders, "load_magnet_lm")
    source = recording(tmp_path / "song.wav")
    assert main.main(["inpaint", str(source), "--span", "1", "1.5", "--model", str(release_folder), "--show-mask"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "75% of 400 tokens kept by outside([(1.0, 1.5)])" and len(lines) == 6
    assert lines[1].split()[2] == "█" * 36 + "·" * 18 + "█" * 18


@pytest.mark.integ
def test_edits_by_the_bundled_model(tmp_path, capsys):
    source = recording(tmp_path / "song.wav", 3.0, "PCM_24")
    before = soundfile.read(source)[0]
    fast = ["--decoding-steps", "2,1,1,1", "--seed", "1", "--out", str(tmp_path)]
    for args in (["inpaint", "--span", "1", "2", "--text", "a reel"], ["extend", "--after", "1"],
                 ["vary", "--preset", "small"], ["loop", "--seam", "1"]):
        assert main.main([args[0], str(source), *args[1:], *fast]) == 0
        path = Path(capsys.readouterr().out.strip())
        wav, info = soundfile.read(path)[0], soundfile.info(path)
        assert (info.channels, info.samplerate, info.subtype) == (2, RATE, "PCM_24") and np.abs(wav).max() > 0.1
        assert len(wav) == (4 if args[0] == "extend" else 3) * RATE
        if args[0] == "inpaint":
            assert (wav[:RATE] == before[:RATE]).all() and (wav[2 * RATE:] == before[2 * RATE:]).all()
            assert not (wav == before).all()
