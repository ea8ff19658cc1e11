"""`bench.measure` and `bench.startup`: turns, ratios, peak memory, subprocesses."""
import time
import typing as tp

import pytest
import torch

from magnet_plugin.bench import measure, startup

CPU = torch.device("cpu")


def test_runs_take_turns_and_errors_are_recorded() -> None:
    order: list[str] = []

    def run(name: str, raising: bool = False) -> tp.Callable[[], None]:
        def call() -> None:
            order.append(name)
            if raising:
                raise RuntimeError("no\nkernel")
        return call

    found = measure.measure_in_turn({"a": run("a"), "b": run("b", raising=True), "c": run("c")}, 2, CPU)
    assert order == ["a", "b", "c", "a", "c", "a", "c"]
    assert found["b"] == {"error": "RuntimeError: no kernel"}
    assert len(found["a"]["seconds"]) == 2 and found["a"]["first"] >= 0


def test_ratios_compare_times_of_the_same_round() -> None:
    found = {"a": {"seconds": [1.0, 10.0, 4.0]}, "b": {"seconds": [0.5, 2.0, 4.0]}, "c": {"error": "x"}}
    assert measure.ratios(found, "a") == {"a": (1.0, 1.0, 1.0), "b": (2.0, 1.0, 5.0)}
    assert measure.ratios(found, "c") == {}


def test_peak_memory_includes_memory_that_was_freed() -> None:
    with measure.PeakMemory(CPU) as peak:
        held = torch.ones(40 * 2 ** 18)             # 40 MiB
        while peak._most < peak._before + 35 * 2 ** 20:
            time.sleep(0.01)                        # until the watching thread has had its turn
        del held
    assert 35 < peak.mib < 80


def test_a_failing_command_is_an_error() -> None:
    startup.run_command(["python3", "-c", "pass"])()
    with pytest.raises(RuntimeError, match="exit status 3: reason"):
        startup.run_command(["python3", "-c", "import sys; print('reason', file=sys.stderr); sys.exit(3)"])()
