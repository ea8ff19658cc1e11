"""Fine-tuning on a folder of audio as a user has it, by the commands of docs/training.md."""
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import soundfile

from magnet_plugin import environment
from magnet_plugin.data.folk.dataset import make_folk

pytestmark = pytest.mark.integ
#: Fewer updates than the recipe has, and the words of the documentation otherwise.
SHORT = ["optim.epochs=1", "optim.updates_per_epoch=4", "dataset.valid.num_samples=8", "dataset.evaluate.num_samples=8",
         "dataset.generate.num_samples=2", "dataset.generate.batch_size=2", "num_threads=2"]


class User:
    """Somebody who works in a folder outside of the checkout."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        path = os.pathsep.join([str(environment.PACKAGE.parent), os.environ.get("PYTHONPATH", "")])
        self.environment = {**os.environ, "AUDIOCRAFT_DORA_DIR": str(folder / "runs"), "PYTHONUNBUFFERED": "1",
                            "PYTHONPATH": path}

    def run(self, module: str, *words: str, status: int = 0) -> str:
        """Run a command and return its stdout."""
        done = subprocess.run([sys.executable, "-m", module, *words], cwd=self.folder, env=self.environment, text=True,
                              capture_output=True, timeout=400)
        assert done.returncode == status, done.stdout[-2000:] + done.stderr[-2000:]
        self.errors = done.stderr
        return done.stdout

    def magnet(self, *words: str, status: int = 0) -> str:
        return self.run("magnet_plugin", *words, status=status)


@pytest.fixture(scope="module")
def user(tmp_path_factory: pytest.TempPathFactory) -> User:
    """A user with twelve tunes of 3 s in folders by instrument, numbered as on a record, without captions."""
    folder = tmp_path_factory.mktemp("user")
    make_folk(folder / "folk", clips=12, seed=3, sample_rate=16000, duration=3.0, progress=False)
    for number, path in enumerate(sorted((folder / "folk" / "audio").rglob("*.wav")), 1):
        facts = json.loads(path.with_suffix(".json").read_text())
        target = folder / "my audio" / facts["instrument"] / f"{number:02d} - {str(facts['title']).replace(' ', '_')}.wav"
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, target)
    shutil.rmtree(folder / "folk")
    return User(folder)


def test_from_a_folder_to_a_clip(user: User) -> None:
    text = user.magnet("data", "scan", "my audio", "--out", "egs/mine", "--split", "train=.6", "valid=.2", "evaluate=.2")
    assert "12 captions made from the names" in text
    report = json.loads(user.magnet("data", "check", "egs/mine", "--batch-size", "4", "--json"))
    assert report["settings"] == ["dataset.segment_duration=3"]
    assert sum(split["captions"]["missing"] for split in report["splits"].values()) == 0

    out = user.run("dora", "-P", "magnet_plugin", "run", "solver=magnet/finetune_cpu", "datasource.scan=egs/mine",
                   "label=mine", *report["settings"], *SHORT)
    assert not [word for word in ("weight_norm", "Dora directory", "Up to version") if word in out + user.errors]
    [run] = json.loads(user.magnet("runs", "--json"))
    assert (run["name"], run["state"], run["epoch"], run["solver"]) == ("mine", "finished", 1, "magnet/finetune_cpu")
    assert "magnet export mine --out mine" in user.magnet("runs", "mine")

    user.magnet("export", "mine", "--out", "mine")
    facts = json.loads(user.magnet("inspect", "./mine", "--json"))
    assert facts["safe"] and facts["model"]["segment (s)"] == 3
    assert facts["model"]["continued from"] == "//bundled/magnet-16khz"
    card = (user.folder / "mine" / "README.md").read_text()
    assert "| updates | 4 |" in card and "| epochs | 1 of 1 |" in card and str(user.folder) not in card

    [clip] = user.magnet("generate", "violin, a reel", "--model", "./mine", "--preset", "draft", "--seed", "1").split()
    assert soundfile.info(str(user.folder / clip)).duration == 3.0


def test_an_evaluation_of_a_model_that_is_not_trained_names_the_training(user: User) -> None:
    words = ["-P", "magnet_plugin", "run", "solver=magnet/finetune_cpu", "label=untrained", *SHORT]
    parent = user.folder / "runs" / "xps" / "0a1b2c3d"
    parent.mkdir(parents=True)
    (parent / ".argv.json").write_text(json.dumps(words[3:]))
    user.run("dora", *words, "execute_only=evaluate", "continue_from=//sig/0a1b2c3d", "datasource.scan=egs/mine", status=1)
    assert "Traceback" not in user.errors
    [line] = [line for line in user.errors.splitlines() if "not trained yet" in line]
    assert "Run this job first" in line and "solver=magnet/finetune_cpu label=untrained" in line
