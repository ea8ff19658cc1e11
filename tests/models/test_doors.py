"""Every way by which a file of a stranger gets in refuses the same hostile files, in one line that names the file."""
import contextlib
import functools
import io
import os
import time
import typing as tp
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf

import magnet_plugin

magnet_plugin.register()
from audiocraft.models import loaders as audiocraft_loaders  # noqa: E402
from audiocraft.solvers.compression import CompressionSolver  # noqa: E402
from audiocraft.utils import checkpoint as audiocraft_checkpoint  # noqa: E402

from magnet_plugin import MAGNeT  # noqa: E402
from magnet_plugin.cli import main as cli  # noqa: E402
from magnet_plugin.models import checkpoints  # noqa: E402
from magnet_plugin.models.autoregressive import AutoregressiveModel  # noqa: E402
from magnet_plugin.models.loaders import load_codec  # noqa: E402

LM, CODEC = checkpoints.LM_FILE, checkpoints.CODEC_FILE
SECONDS = 8


class Code:
    """Creates a file when it is unpickled without care."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return os.mkdir, (str(self.path),)


def changed(file: str, **changes: tp.Any) -> tp.Callable[[Path], None]:
    """Change settings of a file's config; a dot is written as two underscores."""
    def change(folder: Path) -> None:
        package = checkpoints.load(folder / file)
        cfg = OmegaConf.create(package["xp.cfg"])
        for name, value in changes.items():
            OmegaConf.update(cfg, name.replace("__", "."), value, force_add=True)
        torch.save({**package, "xp.cfg": OmegaConf.to_yaml(cfg)}, folder / file)
    return change


def weights(file: str, change: tp.Callable[[dict[str, torch.Tensor]], tp.Any]) -> tp.Callable[[Path], None]:
    def rewrite(folder: Path) -> None:
        package = checkpoints.load(folder / file)
        change(package["best_state"])
        torch.save(package, folder / file)
    return rewrite


def code(file: str) -> tp.Callable[[Path], None]:
    def write(folder: Path) -> None:
        package = {"best_state": {"w": torch.zeros(1)}, "xp.cfg": "a: 1", "code": Code(folder.parent / "ran")}
        torch.save(package, folder / file)
    return write


def content(file: str, value: bytes) -> tp.Callable[[Path], None]:
    return lambda folder: (folder / file).write_bytes(value) and None


def pipe(file: str) -> tp.Callable[[Path], None]:
    def make(folder: Path) -> None:
        (folder / file).unlink()
        os.mkfifo(folder / file)
    return make


def link(file: str, target: str) -> tp.Callable[[Path], None]:
    def make(folder: Path) -> None:
        (folder / file).unlink()
        (folder / file).symlink_to(target)
    return make


def refers(name: tp.Any) -> tp.Callable[[Path], None]:
    return lambda folder: torch.save({"pretrained": name, "exported": True}, folder / CODEC)


def first(state: dict[str, torch.Tensor]) -> str:
    return next(key for key, value in state.items() if value.is_floating_point())


def both(file: str) -> dict[str, tp.Callable[[Path], None]]:
    """Files that are refused whether they hold a language model or a codec."""
    return {
        "code": code(file), "text": content(file, b"hello\n" * 50), "empty": content(file, b""),
        "page": content(file, b"<html>" + bytes(500)), "device": link(file, "/dev/zero"), "pipe": pipe(file),
        "loop": link(file, file), "not finite": weights(file, lambda state: state[first(state)].fill_(float("nan"))),
        "missing key": weights(file, lambda state: state.pop(first(state))),
        "extra key": weights(file, lambda state: state.update(more=torch.zeros(1))),
        "other shape": weights(file, lambda state: state.update({first(state): torch.zeros(3, 1)})),
        "circle": changed(file, device="${a}", a="${device}"),
        "function": changed(file, sample_rate="${oc.decode:'16000'}"),
    }


LM_CASES = {**both(LM), "huge": changed(LM, transformer_lm__dim=10 ** 9),
            "deep": changed(LM, transformer_lm__num_layers=10 ** 8),
            "wide": changed(LM, transformer_lm__hidden_scale=10 ** 9),
            "no heads": changed(LM, transformer_lm__num_heads=0), "no conditioners": changed(LM, conditioners=None),
            "unknown conditioner": changed(LM, conditioners__description__model="../../evil"),
            "unknown activation": changed(LM, transformer_lm__activation="system")}
CODEC_CASES = {**both(CODEC), "layers": changed(CODEC, seanet__n_residual_layers=10 ** 9),
               "huge": changed(CODEC, seanet__dimension=10 ** 9), "bins": changed(CODEC, rvq__bins=10 ** 9),
               "wide": changed(CODEC, seanet__n_filters=2 ** 19), "latents": changed(CODEC, seanet__dimension=2 ** 20),
               "many bins": changed(CODEC, rvq__bins=2 ** 20),
               "ratios": changed(CODEC, seanet__ratios=[10 ** 9]), "no ratios": changed(CODEC, seanet__ratios=0),
               "not a number": changed(CODEC, seanet__n_filters=float("nan")), "word": changed(CODEC, rvq__n_q="many"),
               "activation": changed(CODEC, seanet__activation="load_state_dict"),
               "no quantizer": changed(CODEC, encodec__quantizer="none such"),
               "no model": changed(CODEC, compression_model="x"),
               "path": refers("/etc/passwd"), "upwards": refers("../../etc"), "bundled upwards": refers("//bundled/../x"),
               "no name": refers(["facebook/encodec_32khz"])}


def to_cli(*words: str) -> tp.Callable[[Path], None]:
    def run(folder: Path) -> None:
        """Raise the error that the command has printed, if its status is not 0."""
        with contextlib.redirect_stderr(io.StringIO()) as printed:
            status = cli.main([word.format(folder=folder, out=folder.parent / "out") for word in words])
        lines = printed.getvalue().strip().splitlines()
        assert len(lines) <= 3, lines
        if status:
            assert lines[-1].startswith("magnet: error:"), lines
            raise ValueError(lines[-1])
    return run


@functools.cache
def bundled_model() -> MAGNeT:
    return MAGNeT.get_pretrained("//bundled/magnet-16khz", device="cpu")


def auxiliary(setting: str) -> tp.Callable[[Path], None]:
    def use(folder: Path) -> None:
        frames = {"prompt_duration": 1} if setting == "prompt_model" else {}
        bundled_model().with_generation_params(**{setting: str(folder), **frames})
    return use


def by_signature(folder: Path) -> None:
    """As `//sig/SIG` finds it: a run's checkpoint."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("audiocraft.environment.AudioCraftEnvironment.get_dora_dir", lambda: folder.parent / "dora")
        run = folder.parent / "dora" / "xps" / "abcd1234"
        run.mkdir(parents=True)
        run.joinpath(checkpoints.CHECKPOINT).symlink_to(folder / LM)
        MAGNeT.get_pretrained("//sig/abcd1234", device="cpu")


def continued(folder: Path) -> None:
    """What `continue_from` reads; shapes and keys are compared when the model is there, see tests/solvers."""
    audiocraft_checkpoint.load_checkpoint(audiocraft_checkpoint.resolve_checkpoint_path(str(folder)))


LM_DOORS: dict[str, tp.Callable[[Path], tp.Any]] = {
    "get_pretrained": lambda folder: MAGNeT.get_pretrained(str(folder), device="cpu"), "signature": by_signature,
    "rescorer": auxiliary("rescorer"), "prompt_model": auxiliary("prompt_model"),
    "musicgen": lambda folder: AutoregressiveModel.load(folder), "generate": to_cli("generate", "a", "--model", "{folder}"),
    "export": to_cli("export", "{folder}", "--out", "{out}")}
CODEC_DOORS: dict[str, tp.Callable[[Path], tp.Any]] = {
    "load_codec": load_codec, "get_pretrained": LM_DOORS["get_pretrained"],
    "compression_model_checkpoint": lambda folder: CompressionSolver.model_from_checkpoint(folder / CODEC)}
#: Doors that read files without building a model refuse what is wrong with the file itself.
FILE_DOORS: dict[str, tuple[tp.Callable[[Path], tp.Any], str]] = {
    "continue_from": (continued, LM),
    "audiocraft": (lambda folder: audiocraft_loaders.load_compression_model(folder / CODEC), CODEC),
    "audiocraft, language model": (lambda folder: audiocraft_loaders.load_lm_model(folder / LM), LM)}
FILES = ("code", "text", "empty", "page", "pipe")
#: All doors have these cases; those that only the model shows when it is built, or its config, are tried at one or two.
EVERYWHERE = {"code", "text", "pipe", "not finite"}


@pytest.fixture
def folder(release_folder: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "release"
    folder.mkdir()
    for file in (LM, CODEC):
        (folder / file).write_bytes((release_folder / file).read_bytes())
    return folder


def check(door: tp.Callable[[Path], tp.Any], folder: Path) -> None:
    begin = time.monotonic()
    with pytest.raises(ValueError) as caught:
        door(folder)
    text = str(caught.value)
    assert "\n" not in text and len(text) < 1200 and str(folder.parent) in text, text
    assert time.monotonic() - begin < SECONDS
    assert not (folder.parent / "ran").exists(), "code in the file was run"


@pytest.mark.parametrize("door, case", [(door, case) for door in LM_DOORS for case in LM_CASES
                                        if door == "get_pretrained" or case in EVERYWHERE
                                        or (door == "musicgen" and case in ("missing key", "huge"))])
def test_language_models_of_strangers(door: str, case: str, folder: Path) -> None:
    LM_CASES[case](folder)
    check(LM_DOORS[door], folder)


@pytest.mark.parametrize("door, case", [(door, case) for door in CODEC_DOORS for case in CODEC_CASES
                                        if door == "load_codec" or case in EVERYWHERE or case in ("bins", "path")])
def test_codecs_of_strangers(door: str, case: str, folder: Path) -> None:
    CODEC_CASES[case](folder)
    check(CODEC_DOORS[door], folder)


@pytest.mark.parametrize("door, case", [(door, case) for door in FILE_DOORS for case in FILES if case != "pipe"])
def test_files_that_are_read_without_building(door: str, case: str, folder: Path) -> None:
    use, file = FILE_DOORS[door]
    both(file)[case](folder)
    check(use, folder)


def test_models_that_name_each_other_as_codec(folder: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (other / CODEC).write_bytes((folder / CODEC).read_bytes())
    changed(CODEC, compression_model_checkpoint=str(other))(folder)
    changed(CODEC, compression_model_checkpoint=str(folder))(other)
    check(load_codec, folder)


def test_inspect_runs_no_code_and_does_not_wait(folder: Path, capsys: pytest.CaptureFixture) -> None:
    code(LM)(folder)
    pipe(CODEC)(folder)
    assert cli.main(["inspect", str(folder)]) == 1
    assert "NO" in capsys.readouterr().out and not (folder.parent / "ran").exists()


def test_a_whole_folder_gets_in(folder: Path) -> None:
    """Otherwise the tests above would pass for any reason."""
    for door in (LM_DOORS["get_pretrained"], LM_DOORS["signature"], load_codec, continued, to_cli("inspect", "{folder}"),
                 FILE_DOORS["audiocraft"][0]):
        door(folder)
