"""The folk set as files: reproducible, complete or absent, and ready for training."""
from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from magnet_plugin.data.folk import dataset as module
from magnet_plugin.data.folk.dataset import make_folk, split_sizes
from magnet_plugin.data.folk.render import silent_share
from magnet_plugin.data.manifests import read_manifest

CLIPS, SEED, RATE, DURATION = 36, 1, 16000, 2.0     # as in the fixture `folk`


def digests(out: Path) -> dict[str, str]:
    return {str(path.relative_to(out)): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in sorted(out.glob("audio/*/*"))}


def again(out: Path, seed: int = SEED, jobs: int = 1) -> dict[str, Path]:
    return make_folk(out, CLIPS, seed, RATE, DURATION, jobs=jobs, progress=False)


def test_files_do_not_depend_on_the_number_of_processes(folk: Path, tmp_path: Path) -> None:
    again(tmp_path / "b", jobs=1)
    assert len(digests(folk)) == 2 * CLIPS
    assert digests(folk) == digests(tmp_path / "b")


def test_another_seed_gives_other_files(folk: Path, tmp_path: Path) -> None:
    make_folk(tmp_path / "c", 3, SEED + 1, RATE, DURATION, jobs=1, progress=False)
    assert not set(digests(folk).values()) & set(digests(tmp_path / "c").values())


def test_captions_and_notes_of_this_format_do_not_change(folk: Path) -> None:
    """If this fails, the same arguments now give other clips: increase `FORMAT`, so that old sets are not reused."""
    digest = hashlib.sha256()
    for path in sorted(folk.glob("audio/*/*.json")):
        digest.update(path.read_bytes())
    assert (module.FORMAT, digest.hexdigest()[:16]) == (3, "42fb0948f667b686")


def test_manifests_name_every_clip_once(folk: Path) -> None:
    assert split_sizes(CLIPS, module.FOLK_SHARES) == {"train": 30, "valid": 3, "evaluate": 3}
    paths = []
    for name, count in split_sizes(CLIPS, module.FOLK_SHARES).items():
        lines = read_manifest(folk / "egs" / name)
        assert len(lines) == count
        paths += [line["path"] for line in lines]
        for line in lines:
            info = soundfile.info(line["path"])
            assert (line["duration"], line["sample_rate"]) == (info.duration, info.samplerate) == (DURATION, RATE)
            assert (info.channels, info.subtype) == (1, "PCM_16")
            assert abs(line["amplitude"] - np.abs(soundfile.read(line["path"])[0]).max()) < 1e-4
    assert sorted(paths) == sorted(str(path) for path in folk.glob("audio/*/*.wav"))
    assert [line["path"] for line in read_manifest(folk / "egs" / "generate")] == paths[-3:]


@pytest.mark.parametrize("clips", [3, 7, 10, 101])
def test_shares_add_up(clips: int) -> None:
    counts = split_sizes(clips, {"train": 0.98, "valid": 0.01, "evaluate": 0.01})
    assert sum(counts.values()) == clips and min(counts.values()) >= 1


def test_levels(clips: list[tuple[dict, np.ndarray]]) -> None:
    for facts, wav in clips:
        rms, peak = np.sqrt((wav ** 2).mean()), np.abs(wav).max()
        assert peak <= 10 ** (-1 / 20) + 1e-4, facts["name"]
        assert abs(20 * np.log10(rms) + 20) < 0.1 or abs(20 * np.log10(peak) + 1) < 0.1, facts["name"]
        assert np.abs(wav[:RATE // 10]).max() > 0.02, "a clip starts with a note"


def test_silence_is_relative_to_the_loudest_window() -> None:
    wav = np.zeros(RATE, dtype=np.float32)
    assert silent_share(wav, RATE) == 1
    wav[:RATE // 4] = np.sin(np.arange(RATE // 4))
    assert silent_share(wav, RATE) == pytest.approx(0.75, abs=0.02)
    wav[RATE // 4:] = 0.01 * np.sin(np.arange(RATE * 3 // 4))
    assert silent_share(wav, RATE) == 0


def test_a_finished_set_is_kept(folk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "choose_tunes", lambda *_: pytest.fail("made again"))
    assert again(folk) == {name: folk / "egs" / name for name in ("train", "valid", "evaluate", "generate")}


def test_an_incomplete_set_is_made_again(folk: Path, tmp_path: Path) -> None:
    out = tmp_path / "half"
    shutil.copytree(folk, out)
    (out / "folk.json").unlink()
    shutil.rmtree(out / "audio" / "train")
    again(out, jobs=2)
    assert digests(out) == digests(folk)
    assert [path.name for path in tmp_path.iterdir()] == ["half"]


def test_a_moved_set_finds_its_audio(folk: Path, tmp_path: Path) -> None:
    shutil.copytree(folk, tmp_path / "moved")
    folders = again(tmp_path / "moved")
    for folder in folders.values():
        assert all(line["path"].startswith(str(tmp_path)) and Path(line["path"]).exists()
                   for line in read_manifest(folder))


def test_folders_with_other_files_are_refused(folk: Path, tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("...")
    with pytest.raises(ValueError, match="thesis.tex.*another folder"):
        again(tmp_path)
    with pytest.raises(ValueError, match="'seed': 9.*another folder"):
        again(folk, seed=9)
    assert (tmp_path / "thesis.tex").exists() and len(digests(folk)) == 2 * CLIPS


@pytest.mark.parametrize("wrong", [{"clips": 2}, {"sample_rate": 16}, {"duration": 0.0}, {"seed": -1},
                                   {"splits": {"train": 1.0, "valid": 0.0}}, {"splits": {}}])
def test_invalid_arguments_are_named(tmp_path: Path, wrong: dict) -> None:
    with pytest.raises(ValueError, match=f"{next(iter(wrong))}="):
        make_folk(tmp_path / "x", **wrong)


@pytest.mark.integ
def test_concurrent_callers_share_one_set(folk: Path, tmp_path: Path) -> None:
    """The callers are scripts on standard input without a `__main__` guard, which `multiprocessing` could not import."""
    script = ("from pathlib import Path; from magnet_plugin.data.folk.dataset import make_folk; "
              f"make_folk(Path({str(tmp_path / 'set')!r}), {CLIPS}, {SEED}, {RATE}, {DURATION}, jobs=2)")
    callers = [subprocess.Popen([sys.executable, "-"], stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
               for _ in range(3)]
    for caller in callers:
        assert caller.stdin is not None
        caller.stdin.write(script)
        caller.stdin.close()
    errors = [caller.stderr.read() for caller in callers if caller.stderr]
    assert [caller.wait() for caller in callers] == [0, 0, 0], errors
    assert sum("rendering" in text for text in errors) == 1, "one caller makes it, the others wait"
    assert digests(tmp_path / "set") == digests(folk)
    assert [path.name for path in tmp_path.iterdir()] == ["set"]


def test_importing_is_light() -> None:
    script = ("import sys; from magnet_plugin.data import folders, listing, manifests, parallel, preflight, scan; "
              "from magnet_plugin.data.folk import dataset; "
              "heavy = ('torch', 'audiocraft', 'music21', 'tinysoundfont', 'soundfile'); "
              "print([m for m in heavy if m in sys.modules])")
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
