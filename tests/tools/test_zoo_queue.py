"""The queue of trainings, with runs that this test makes up."""
import pytest

from magnet_plugin.train import main as entry
from tools import zoo, zoo_queue
from tools.zoo_queue import QUEUE, Runs, Search, Step


class FakeRuns(Runs):
    """Trainings of two epochs that take no time; `interrupted` runs stop after one."""

    interrupted: set[str] = set()

    def __init__(self, common: list[str] = []) -> None:  # noqa: B006
        super().__init__(common)
        self.histories: dict[str, list] = {}
        self.trained: list[list[str]] = []

    def find(self, arguments: list[str]) -> tuple[str, int, list]:
        sig = " ".join(arguments)
        return sig, 2, list(self.histories.get(sig, []))

    def train(self, arguments: list[str]) -> None:
        sig = " ".join(arguments)
        self.trained.append(arguments)
        loss = {"lr=1": 3.0, "lr=2": 2.0, "lr=3": 4.0}.get(arguments[-1], 1.0)
        done = self.histories.setdefault(sig, [])
        done += [{"valid": {"ce": loss}}] * (1 if sig in self.interrupted else 2 - len(done))


def test_steps_use_the_results_of_earlier_ones() -> None:
    runs = FakeRuns()
    assert runs.work(Step("a", ("x=1",)))
    assert runs.work(Search("b", ("from={a}",), "lr", ("1", "2", "3")))
    assert runs.work(Step("c", ("y={a}", "lr={b}")))
    assert runs.trained[-1] == ["y=//sig/x=1", "lr=2"] and len(runs.trained) == 5


def test_done_steps_are_skipped_and_interrupted_ones_resumed(monkeypatch: pytest.MonkeyPatch) -> None:
    runs = FakeRuns(["n=1"])
    monkeypatch.setattr(FakeRuns, "interrupted", {"x=1 n=1"})
    assert not runs.work(Step("a", ("x=1",)))
    monkeypatch.setattr(FakeRuns, "interrupted", set())
    assert not runs.work(Step("a", ("x=1",)), train=False)
    assert runs.work(Step("a", ("x=1",))) and runs.work(Step("a", ("x=1",)))
    assert runs.trained == [["x=1", "n=1"]] * 2


def test_the_command_stops_at_the_first_step_that_is_not_done(monkeypatch: pytest.MonkeyPatch,
                                                              capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(zoo_queue, "Runs", FakeRuns)
    assert zoo.main(["queue", "--status"]) == 1
    assert capsys.readouterr().out.startswith("codec: 0 of 2 epochs, run solver=compression/stft_16khz")
    assert zoo.main(["queue", "--until", "codec-finish", "--", "lr=1"]) == 0
    assert capsys.readouterr().out.splitlines()[-1].startswith("codec-finish: done")


def test_the_steps_of_the_queue_are_valid_runs() -> None:
    """Every run composes; names refer to earlier steps, and no two runs are the same."""
    runs, signatures = Runs(), []
    for item in QUEUE:
        values = item.values if isinstance(item, Search) else ("",)
        for value in values:
            more = (f"{item.key}={value}",) if isinstance(item, Search) else ()
            signatures.append(entry.get_xp(runs.arguments((*item.overrides, *more))).sig)
        runs.results[item.name] = values[0] if isinstance(item, Search) else f"//sig/{signatures[-1]}"
    assert len(set(signatures)) == len(signatures) == 11


def test_given_results_replace_their_steps_and_those_that_only_they_need(monkeypatch: pytest.MonkeyPatch,
                                                                         capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(zoo_queue, "Runs", FakeRuns)
    assert zoo.main(["queue", "--until", "magnet", "--given", "codec-finish=tools", "--given", "magnet-lr=1e-3"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.partition(":")[0] for line in lines] == ["magnet"] * 2
    assert f"compression_model_checkpoint={zoo_queue.Path('tools').resolve()}" in lines[0] and "optim.lr=1e-3" in lines[0]
    with pytest.raises(SystemExit):
        zoo.main(["queue", "--given", "codek=x"])
    assert "there is no such step" in capsys.readouterr().err
