"""Runs are found by name, with their state and the command that continues them."""
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from magnet_plugin import environment
from magnet_plugin.sweeps import runs

from ..helpers.toy_grids import END, SPANS, Dora, epoch


def named(dora: Dora, label: str, *history: dict, **settings: object) -> Path:
    """A run with a label, as Dora leaves it behind."""
    return dora.ran({"label": label, **settings}, *history)


def test_runs_are_listed_with_state_losses_and_age_the_latest_first(dora: Dora) -> None:
    done = named(dora, "done", epoch(5.0), epoch(3.0), epoch(2.0, **END))
    half = named(dora, "half", epoch(5.0))
    (half / "preempted.th").touch()
    broken = named(dora, "bad", epoch(1.0))
    (broken / "history.json").write_text("[{")
    past = time.time() - 7200
    for path in (done / "solver.log.0", done / "history.json"):
        os.utime(path, (past, past))
    found = {run.name: run for run in runs.find_runs(dora.main.dora.dir)}
    assert list(found)[-1] == "done" and set(found) == {"done", "half", "bad"}
    assert [found[name].state for name in ("done", "half", "bad")] == ["finished", "stopped", "broken"]
    assert found["done"].losses == {"train": 2.5, "valid": 2.0} and (found["half"].epoch, found["half"].epochs) == (1, 3)
    assert found["done"].idle == pytest.approx(7200, abs=60) and found["done"].solver == "magnet/debug"
    assert "stopped within epoch 2" in found["half"].note and "history.json" in found["bad"].note
    assert found["half"].command.endswith("run solver=magnet/debug label=half")
    assert json.loads(runs.as_json(list(found.values())))[0]["name"] in found


def test_a_run_is_running_while_its_process_lives(dora: Dora) -> None:
    folder = named(dora, "mine", epoch(5.0))
    assert runs.read_run(folder).state == "stopped"
    code = (f"import time\nfrom pathlib import Path\nfrom magnet_plugin.sweeps.holding import holding\n"
            f"with holding(Path({str(folder)!r})):\n    print('held', flush=True)\n    time.sleep(60)")
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None and process.stdout.readline() == "held\n"
        assert runs.read_run(folder).state == "running"
    finally:
        process.kill()
        process.wait()
    assert runs.read_run(folder).state == "stopped"


def test_names_become_signatures(dora: Dora, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AUDIOCRAFT_DORA_DIR", str(dora.main.dora.dir))
    one, two = named(dora, "mine", epoch(5.0)), named(dora, "yours", epoch(5.0))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine").mkdir()
    (tmp_path / "release").mkdir()
    assert runs.resolve_name("mine") == f"//sig/{one.name}", "a run comes before a folder of the same name"
    assert runs.resolve_name(two.name) == f"//sig/{two.name}"
    for name in ("./mine", "release", "//sig/00000000", "//bundled/codec-16khz", "owner/name"):
        assert runs.resolve_name(name) == name
    with pytest.raises(ValueError, match="no run is called 'nobody'.*known are: .*mine"):
        runs.resolve_name("nobody")
    other = named(dora, "mine", epoch(5.0), seed=1)
    with pytest.raises(ValueError, match="2 runs are called 'mine'; give the signature") as error:
        runs.resolve_name("mine")
    assert one.name in str(error.value) and other.name in str(error.value)


def test_a_model_that_is_not_trained_yet_is_named_with_the_command_that_trains_it(dora: Dora) -> None:
    folder, root = named(dora, "parent"), dora.main.dora.dir
    with pytest.raises(ValueError, match="not trained yet. Run this job first.*: dora .*solver=magnet/debug label=parent$"):
        runs.check_trained(f"//sig/{folder.name}", root)
    with pytest.raises(ValueError, match="there is no such run in"):
        runs.check_trained("//sig/00000000", root)
    (folder / "checkpoint.th").touch()
    for source in (f"//sig/{folder.name}", "//bundled/magnet-16khz", "/some/path"):
        runs.check_trained(source, root)


def test_a_local_command_names_the_package_outside_of_a_checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    argv = ["solver=magnet", "label=a b"]
    monkeypatch.chdir(tmp_path)
    assert runs.local_command(argv) == "dora -P magnet_plugin run solver=magnet 'label=a b'"
    monkeypatch.chdir(environment.PACKAGE.parent)
    assert runs.local_command(argv, distributed=True) == "dora run -d solver=magnet 'label=a b'"


def test_a_job_of_one_stage_says_so(dora: Dora) -> None:
    folder = dora.ran({**SPANS[0], "execute_only": "evaluate"}, {"evaluate": {"ce": 1.0}})
    run = runs.read_run(folder)
    assert run.state == "finished" and run.note == "runs only the stage evaluate" and run.name == folder.name
