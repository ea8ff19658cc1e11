"""What `magnet inspect` reads from the files of a model."""
import os
import shutil
import typing as tp
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from magnet_plugin.models import checkpoints
from magnet_plugin.models.inspection import inspect, locate

from ..helpers.toy_runs import write_run


class _Code:
    def __reduce__(self) -> tuple[tp.Any, ...]:
        return os.system, (f"touch {os.environ['MARK']}",)


def test_a_release_folder(release_folder: Path, tmp_path: Path) -> None:
    out = checkpoints.export(str(release_folder), tmp_path / "out", half=True)
    facts = inspect(out)
    assert facts["safe"] and facts["licence"] is None
    assert [file["file"] for file in facts["files"]] == [
        "state_dict.bin", "state_dict.safetensors", "compression_state_dict.bin", "compression_state_dict.safetensors"]
    assert [file["kind"] for file in facts["files"]] == ["language model: release"] * 2 + ["codec: release"] * 2
    one, two, codec, _ = facts["files"]
    state = checkpoints.load(out / "state_dict.bin")["best_state"]
    assert one["weights"] == two["weights"] == {
        "tensors": len(state), "parameters": sum(value.numel() for value in state.values()),
        "bytes": sum(value.numel() * 2 for value in state.values()), "dtypes": {"float16": len(state)}}
    assert one["settings"] == two["settings"] == facts["model"]
    expected = {"solver": "magnet", "codebooks": 4, "entries": 64, "segment (s)": 2, "sample rate (Hz)": 16000,
                "channels": 1, "codec": "//bundled/codec-16khz", "conditioners": {"description": "words"}}
    assert expected.items() <= facts["model"].items()
    assert codec["settings"]["codebooks"] == 4 and "dimension" not in codec["settings"]


def test_a_run(release_folder: Path, tmp_path: Path) -> None:
    facts = inspect(write_run(tmp_path, release_folder, label="tune"))
    [file] = facts["files"]
    assert file["kind"] == "language model: training checkpoint" and file["epochs"] == 3
    assert facts["model"]["label"] == "tune" and file["weights"]["dtypes"] == {"float32": file["weights"]["tensors"]}


def test_code_is_named_and_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MARK", str(tmp_path / "ran"))
    torch.save({"best_state": {"weight": torch.zeros(2)}, "extra": _Code()}, tmp_path / "state_dict.bin")
    facts = inspect(tmp_path)
    [file] = facts["files"]
    assert not facts["safe"] and file["kind"] == "unsafe" and "posix.system" in file["problem"]
    assert not (tmp_path / "ran").exists()


def test_other_files_are_described_as_what_they_are(tmp_path: Path) -> None:
    (tmp_path / "a.bin").write_bytes(b"not a checkpoint")
    torch.save([1, 2], tmp_path / "b.bin")
    save_file({"weight": torch.zeros(2, dtype=torch.bfloat16)}, tmp_path / "c.safetensors")
    (tmp_path / "d.safetensors").write_bytes(b"no")
    torch.save({"pretrained": "facebook/encodec_32khz", "exported": True, "version": "1"}, tmp_path / "e.bin")
    found = {name: inspect(tmp_path / name) for name in ("a.bin", "b.bin", "c.safetensors", "d.safetensors", "e.bin")}
    assert [found[name]["safe"] for name in found] == [False, False, True, False, True]
    assert "torch.save" in found["a.bin"]["files"][0]["problem"] and "holds a list" in found["b.bin"]["files"][0]["problem"]
    assert found["c.safetensors"]["files"][0]["weights"]["dtypes"] == {"bfloat16": 1}
    assert found["e.bin"]["files"][0]["kind"] == "reference to the codec facebook/encodec_32khz"
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="holds none of checkpoint.th"):
        inspect(tmp_path / "empty")


@pytest.mark.parametrize("text, licence", [
    ("---\nlicense: cc-by-4.0\n---\n", "cc-by-4.0"), ("---\nlicense: other\nlicense_name: mine\n---\n", "mine"),
    ("---\ntags: [a]\n---\n", None), ("# no front matter\nlicense: x\n", None), ("---\n{\n---\n", None)])
def test_the_licence_is_that_of_the_card(release_folder: Path, tmp_path: Path, text: str, licence: "str | None") -> None:
    shutil.copy(release_folder / "state_dict.bin", tmp_path)
    (tmp_path / "README.md").write_text(text)
    assert inspect(tmp_path)["licence"] == licence


def test_names_are_located(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AUDIOCRAFT_DORA_DIR", str(tmp_path))
    (tmp_path / "xps" / "0a1b2c3d").mkdir(parents=True)
    assert locate("//sig/0a1b2c3d") == tmp_path / "xps" / "0a1b2c3d"
    assert inspect(locate("//bundled/magnet-16khz"))["licence"]
    for name, words in (("owner/name", "hf download owner/name --local-dir"), ("//sig/00000000", "give a release folder"),
                        (str(tmp_path / "x"), "give a release folder"), ("//bundled/nothing", "no such bundled model")):
        with pytest.raises(ValueError, match=words):
            locate(name)
