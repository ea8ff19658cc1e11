"""The live tables, through Dora's own grid machinery."""
import contextlib
import importlib
import io
import re
import shutil
import typing as tp

from dora import Explorer
from dora.grid import RunGridArgs, run_grid

from magnet_plugin import environment
from magnet_plugin.sweeps import slurm

from ..helpers.toy_grids import EVALUATIONS, SPANS, Dora, epoch


def live(dora: Dora, explorer: Explorer) -> str:
    """What `dora grid --no_monitoring --dry_run` prints, without colours."""
    slurm.patch_dora(dora.main)
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        run_grid(dora.main, explorer, "toy", args=RunGridArgs(monitor=False, dry_run=True))
    return re.sub(r"\x1b\[[\d;]*m", "", out.getvalue())


def explorers() -> tp.Any:
    return importlib.import_module(f"{environment.grids_package()}._explorers")


def test_the_live_table_of_a_training_grid(mixed: Dora) -> None:
    text = live(mixed, mixed.grid(SPANS, explorers().TrainExplorer))
    groups, heads, *body = [line for line in text.splitlines() if "|" in line]
    assert [part.strip() for part in groups.split("|")] == ["Meta", "job", "run", "train", "valid", "evaluate", "generate"]
    assert re.split(r"  +", heads.split("|")[4].strip()) == ["ce", "ppl", *(f"ce q{q}" for q in (1, 2, 3, 4)), "best ce",
                                                             "at epoch"]
    assert re.split(r"  +", heads.split("|")[1].strip()) == ["span length", "context"]
    assert heads.split("|")[2].split() == ["state", "epoch", "ping"]
    first = [part.split() for part in body[0].split("|")]
    assert first[1] == ["1", "5"] and first[2][:2] == ["finished", "3/3"] and first[3] == ["4.500", "2.000", "8.0"]
    assert first[4] == ["4.000", "54.6", "4.100", "4.200", "4.300", "4.400", "3.000", "2"]
    assert first[6] == ["0.800", "0.400", "5.0"]
    assert re.search(r"unknown +1/3 +\d+s", body[1]) and "broken" in body[2] and " nan" in body[3]
    assert re.search(r"missing +0/3 ", body[5]) and len(body) == 6
    assert "ce prompt" not in heads and "KLD" not in heads, "columns that no job has are left out"


def test_the_live_table_of_an_evaluation_grid(dora: Dora) -> None:
    explorer = dora.grid(EVALUATIONS, explorers().EvalExplorer)
    dora.ran(EVALUATIONS[0], {"evaluate": {"fad": 3.0, "kld": 1.25, "kld_pq": 1.25}, "generate": {"rtf": 0.4}})
    text = live(dora, explorer)
    groups, heads, first, second = [line for line in text.splitlines() if "|" in line]
    assert [part.strip() for part in groups.split("|")] == ["Meta", "job", "run", "evaluate", "generate"]
    assert heads.split("|")[2].split() == ["state", "ping"] and heads.split("|")[3].split() == ["FAD", "KLD"]
    assert re.search(r"\[4,2\] +\| finished +\d+s +\| +3.000 +1.250 +\| +0.800 +0.400", first)
    assert re.search(r"\[8,2\] +\| missing", second)


def test_the_live_table_follows_the_results(dora: Dora) -> None:
    explorer = dora.grid(SPANS[:2], explorers().TrainExplorer)
    assert "train" not in live(dora, explorer).replace("//", "")
    dora.ran(SPANS[0], epoch(1.0))
    assert "best ce" in live(dora, explorer)
    shutil.rmtree(dora.folder(SPANS[0]))
    assert "best ce" not in live(dora, explorer)
