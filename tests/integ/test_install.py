"""The package as users install it: a wheel in a new environment, and the README's commands."""
import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from .runs import DEBUG, ROOT, dora, history

pytestmark = pytest.mark.integ


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("wheel")
    source = out / "source"
    subprocess.run(["git", "clone", "--quiet", str(ROOT), str(source)], check=True)
    subprocess.run([sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(out), str(source)],
                   check=True, capture_output=True)
    return next(out.glob("*.whl"))


def test_the_wheel_holds_configs_and_grids_inside_the_package(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    tops = {name.split("/")[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"magnet_plugin"}
    for name in ("config/config.yaml", "config/solver/magnet.yaml", "config/teams/default.yaml",
                 "grids/magnet/ablate_span.py", "grids/magnet/tiny/__init__.py", "grids/_base.py",
                 "models/bundled/codec-16khz/compression_state_dict.bin", "decoding/magnet.py", "app/page.html"):
        assert f"magnet_plugin/{name}" in names, name


def test_the_wheel_holds_the_codec_once(wheel: Path) -> None:
    sizes = [item.file_size for item in zipfile.ZipFile(wheel).infolist()
             if item.filename.endswith("compression_state_dict.bin")]
    assert len(sizes) == 4 and sum(size > 10_000 for size in sizes) == 1


def test_a_wheel_trains_from_any_directory(wheel: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A new environment uses this one's packages, but takes the plugin only from the wheel."""
    monkeypatch.delenv("PYTHONPATH", raising=False)
    site = next(path for path in map(Path, sys.path) if (path / "audiocraft").is_dir())
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(tmp_path / "env")], check=True)
    own = next((tmp_path / "env" / "lib").glob("python*/site-packages"))
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(own)
    (own / "shared.pth").write_text(f"{site}\n")
    # Python does not read the .pth files of a folder that a .pth file adds, so the editable install stays invisible.
    python = str(tmp_path / "env" / "bin" / "python")
    found = subprocess.run([python, "-c", "import magnet_plugin; print(magnet_plugin.__file__)"], cwd=tmp_path,
                           capture_output=True, text=True, check=True).stdout
    assert str(own) in found
    one_epoch = [*DEBUG, "optim.epochs=1", "optim.updates_per_epoch=2"]
    package = ("-P", "magnet_plugin")
    dora(tmp_path, *package, "run", *one_epoch, cwd=tmp_path, python=python)
    assert epochs(tmp_path) == 1
    grids = dora(tmp_path, *package, "grid", cwd=tmp_path, python=python).stdout
    offered = set(grids.split("Potential grids are:")[1].replace(",", " ").split())
    assert offered >= {"magnet.ablate_span", "magnet.tiny.ablate_span", "magnet.magnet_32khz", "magnet.tiny.ablate_steps"}


def epochs(folder: Path) -> int:
    """Number of epochs of the only run in a folder."""
    (run,) = (folder / "runs" / "xps").iterdir()
    return len(history(folder, run.name))


def commands() -> list[str]:
    """Lines of the README's shell blocks."""
    blocks = re.findall(r"```bash\n(.*?)```", (ROOT / "README.md").read_text(), re.S)
    return [line.split("#")[0].strip() for block in blocks for line in block.splitlines() if line.strip()]


def test_the_readmes_python_runs_with_the_bundled_model(tmp_path: Path) -> None:
    published, bundled = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.S)
    assert '"facebook/magnet-small-10secs", device="cuda"' in published
    done = subprocess.run([sys.executable, "-c", bundled], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    assert list(tmp_path.glob("*.wav"))


def test_the_readmes_commands_generate_and_edit_as_pasted(tmp_path: Path) -> None:
    """In their order, in one folder; those that download a model are left out."""
    blocks = re.findall(r"```bash\n(.*?)```", (ROOT / "README.md").read_text(), re.S)
    script = "".join(block for block in blocks if "magnet generate --texts" in block or "magnet inpaint" in block)
    assert len(re.findall("^magnet ", script, re.M)) >= 8 and "facebook/" not in script
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    done = subprocess.run(["bash", "-e", "-c", script], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    assert (tmp_path / "edited.wav").exists() and len(list((tmp_path / "outputs").glob("*.flac"))) >= 4


def test_the_readmes_training_command_runs(tmp_path: Path) -> None:
    (training,) = (command for command in commands() if command.startswith("dora "))
    package, overrides = training.split()[1:3], training.split()[4:]
    short = [*overrides, "optim.epochs=1", "optim.updates_per_epoch=1", "dataset.batch_size=2",
             "dataset.train.num_samples=2", "dataset.valid.num_samples=2", "dataset.evaluate.num_samples=2",
             "dataset.generate.num_samples=1", "dataset.generate.batch_size=1", "datasource.folk.clips=48"]
    dora(tmp_path, *package, "run", *short)
    assert epochs(tmp_path) == 1


def test_make_install_does_nothing_the_second_time(tmp_path: Path) -> None:
    """Make itself, with a folder in the place of an installed environment."""
    (tmp_path / "Makefile").write_text((ROOT / "Makefile").read_text())
    (tmp_path / "setup.py").write_text("")
    (tmp_path / "requirements").mkdir()
    for name in ("constraints.txt", "lock.txt"):
        (tmp_path / "requirements" / name).write_text("")
    (tmp_path / ".venv").mkdir()
    (tmp_path / ".venv" / ".ready").write_text("")
    out = subprocess.run(["make", "install"], cwd=tmp_path, capture_output=True, text=True, check=True).stdout
    assert "pip" not in out and "Nothing to be done" in out
