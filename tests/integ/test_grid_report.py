"""A grid of which two jobs really ran here, its live table and its report."""
import csv
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from .runs import ROOT, dora, environment, history, signature

pytestmark = pytest.mark.integ
NAME = "magnet.tiny.ablate_span"


def report(folder: Path, *arguments: str) -> str:
    done = subprocess.run([sys.executable, "-m", "magnet_plugin", "grid-report", NAME, "--out", str(folder), *arguments],
                          cwd=ROOT, env=environment(folder), capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def test_the_report_of_a_grid_with_two_finished_jobs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "bin").mkdir()
    for program in ("git", "env", "sh"):
        os.symlink(str(shutil.which(program)), tmp_path / "bin" / program)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))                       # no SLURM on it
    monkeypatch.setenv("MAGNET_GRID_OVERRIDES", "optim.updates_per_epoch=2 model_scale=xsmall")
    out = dora(tmp_path, "grid", NAME, "--no_monitoring").stdout
    commands = [shlex.split(line)[1:] for line in out.splitlines() if line.startswith("dora run ")]
    ran = [command for command in commands if "masking.span_len=3" in command]
    assert len(commands) == 12 and len(ran) == 2
    for command in ran:
        dora(tmp_path, *command)
    sigs = [signature(tmp_path, *command[1:]) for command in ran]
    dora(tmp_path, *ran[0], "execute_only=generate", "execute_inplace=true")
    text = re.sub(r"\x1b\[[\d;]*m", "", dora(tmp_path, "grid", NAME, "--no_monitoring").stdout)
    assert "2 of 12 jobs have already finished here" in text
    monkeypatch.delenv("MAGNET_GRID_OVERRIDES")                             # Dora has recorded the jobs
    report(tmp_path)
    body = {line["signature"]: line for line in csv.DictReader((tmp_path / f"{NAME}.csv").read_text().splitlines())}
    assert len(body) == 12 and {sig for sig in body if body[sig]["state"] == "finished"} == set(sigs)
    assert {line["state"] for line in body.values()} == {"finished", "missing"}
    for sig in sigs:
        epochs = history(tmp_path, sig)
        assert len(epochs) == 2 and body[sig]["epochs"] == body[sig]["epochs_wanted"] == "2"
        for stage in ("train", "valid", "evaluate"):
            assert float(body[sig][f"{stage}.ce"]) == epochs[-1][stage]["ce"]
        best = min(epoch["valid"]["ce"] for epoch in epochs)
        assert float(body[sig]["valid.best_ce"]) == best
        live, = [line for line in text.splitlines() if f" {sig} " in line]
        assert f"{best:.3f}" in live and "2/2" in live and "finished" in live
    first = history(tmp_path, sigs[0])[-1]["generate"]
    assert float(body[sigs[0]]["generate.rtf"]) != first["rtf"], "generated again, in place"
    markdown = (tmp_path / f"{NAME}.md").read_text()
    assert "12 jobs: 2 finished, 0 incomplete, 10 missing, 0 broken" in markdown
    assert re.search(r"- commit: ([0-9a-f]{10}|not known)", markdown) and "- run on: not known" not in markdown
    assert all((tmp_path / f"{NAME}-{picture}.png").stat().st_size > 5000 for picture in ("metrics", "loss"))
