"""The plan of `magnet bench first-hour`: its steps are processes that may fail, hang or be interrupted."""
import json
import os
import signal
import sys
import threading
import time
from pathlib import Path

import pytest

from magnet_plugin.bench import first_hour
from magnet_plugin.bench.first_hour import Step
from magnet_plugin.cli.main import main


def python(name: str, code: str, limit: float = 60.0, skip: str = "") -> Step:
    return Step(name, (sys.executable, "-S", "-c", code), limit, skip=skip)


def statuses(entries: list[dict]) -> list[str]:
    return [entry["status"] for entry in entries]


def test_failing_and_late_steps_are_recorded_and_the_next_ones_run(tmp_path: Path) -> None:
    earlier = [str(tmp_path / f"{name}.json") for name in ("failing", "late", "not here", "skipping itself")]
    steps = [python("failing", "import sys; print('some', 'x' * 9000); sys.exit('the end')"),
             python("late", "import time; print('began', flush=True); time.sleep(60)", limit=1.0),
             python("not here", "", skip="no such device"),
             python("skipping itself", "print('{\"skipped\": \"no nccl\"}')"),
             python("last", f"import json, os; print('a warning'); print(json.dumps({{'summary': str([os.path.exists(path) "
                            f"for path in {earlier}])}}))")]
    entries = first_hour.run(steps, tmp_path, lambda text: None)
    assert statuses(entries) == ["failed", "late", "skipped", "skipped", "success"]
    assert [json.loads((tmp_path / f"{step.name}.json").read_text()) for step in steps] == entries
    failing, late, absent, itself, last = entries
    assert failing["exit_status"] == 1 and failing["output"].endswith("the end\n") and len(failing["output"]) < 5000
    assert 1 <= late["seconds"] < 30 and "began" in late["output"]
    assert (absent["output"], itself["output"]) == ("no such device", "no nccl")
    assert last["result"] == {"summary": "[True, True, True, True]"} and "output" not in last
    table = first_hour.summarize(entries).splitlines()
    assert [row.split(" | ")[1] for row in table[2:]] == statuses(entries)
    assert "the end" in table[2] and "no such device" in table[4] and "no nccl" in table[5] and "True, True" in table[6]


def test_only_a_success_of_the_same_command_is_not_repeated(tmp_path: Path) -> None:
    def runs(code: str = "") -> int:
        count = tmp_path / "count"
        step = python("step", f"open({str(count)!r}, 'a').write('x'); {code}")
        first_hour.run([step], tmp_path, lambda text: None)
        return len(count.read_text())

    assert [runs("1 / 0"), runs("1 / 0")] == [1, 2]
    assert [runs(), runs()] == [3, 3]
    assert runs("pass") == 4
    (tmp_path / "step.json").write_text('{"status": "succ')
    assert runs("pass") == 5


def test_a_late_step_is_stopped_with_its_children(tmp_path: Path) -> None:
    path = tmp_path / "pid"
    sleep = "import time; time.sleep(60)"
    code = (f"import subprocess, sys, time; child = subprocess.Popen([sys.executable, '-S', '-c', {sleep!r}]); "
            f"open({str(path)!r}, 'w').write(str(child.pid)); time.sleep(60)")
    started = time.monotonic()
    assert first_hour.run_step(python("step", code, limit=2.0))["status"] == "late"
    assert time.monotonic() - started < 30
    assert not running(int(path.read_text()))


def test_a_stopped_command_stops_its_step(tmp_path: Path) -> None:
    path = tmp_path / "pid"
    step = python("step", f"import os, time; open({str(path)!r}, 'w').write(str(os.getpid())); time.sleep(60)", limit=6.0)
    stop = threading.Timer(2.0, os.kill, (os.getpid(), signal.SIGTERM))

    def handler(*_: object) -> None:
        """The handler of whoever calls this."""
    before = signal.signal(signal.SIGTERM, handler)
    try:
        stop.start()
        with pytest.raises(SystemExit, match="143"):
            first_hour.run([step], tmp_path, lambda text: None)
        assert signal.getsignal(signal.SIGTERM) is handler
    finally:
        signal.signal(signal.SIGTERM, before)
    assert not running(int(path.read_text())) and not (tmp_path / "step.json").exists()


def running(pid: int) -> bool:
    for _ in range(50):                     # the kernel needs a moment to end it
        try:
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                return False
            os.kill(pid, 0)
        except (OSError, ProcessLookupError):
            return False
        time.sleep(0.1)
    return True


def test_the_plan_begins_with_what_tells_most_and_keeps_its_limits() -> None:
    steps = first_hour.plan("cuda:1", smoke=False)
    assert [step.name for step in steps] == [
        "doctor", "gpu-tests", "profile", "decode-small-10s-batch1", "decode-small-10s-batch8", "decode-small-30s-batch1",
        "decode-medium-10s-batch1", "decode-medium-10s-batch8", "train", "fsdp"]
    assert not any(step.skip for step in steps)
    assert all(step.limit <= 180 for step in steps if step.name != "gpu-tests") and sum(step.limit for step in steps) <= 3600
    assert all(step.command[-2:] == ("--device", "cuda:1") for step in steps[2:])
    assert first_hour.plan("cuda", smoke=True)[1].skip == "not part of --smoke"
    assert first_hour.plan("cpu", smoke=True)[1].skip == "they need a CUDA device"


def test_gpu_tests_are_skipped_where_there_are_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(first_hour, "PACKAGE", tmp_path / "magnet_plugin")
    assert first_hour.plan("cuda", smoke=False)[1].skip.startswith(f"{tmp_path / 'tests'} does not exist")


def test_a_cpu_needs_smoke(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(first_hour, "plan", lambda device, smoke: [])
    assert main(["bench", "first-hour", "--device", "cpu", "--out", str(tmp_path / "out")]) == 2
    assert "give --device cuda, or --smoke" in capsys.readouterr().err and not (tmp_path / "out").exists()


@pytest.mark.integ
def test_a_smoke_run_measures_every_step_and_resumes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["bench", "first-hour", "--smoke", "--device", "cpu", "--out", str(tmp_path)]
    main(command)                           # the exit status is that of doctor, which depends on the machine
    entries = {path.stem: json.loads(path.read_text()) for path in tmp_path.glob("*.json")}
    assert entries.keys() == {"doctor", "gpu-tests", *first_hour.MEASURED}
    wrong = {name: entry.get("output") for name, entry in entries.items() if entry["status"] != "success"}
    assert wrong.keys() <= {"doctor", "gpu-tests"}, wrong
    assert "cpu bfloat16" in entries["doctor"]["result"]["text"]
    (clip,), (trained,), (sharded,) = (entries[name]["result"]["cases"] for name in ("profile", "train", "fsdp"))
    assert 0 < clip["kernel_seconds"] < clip["profiled"] and clip["kernels"] > 100
    assert clip["gap_seconds"] == pytest.approx(clip["profiled"] - clip["kernel_seconds"])
    assert [len(trained["seconds"][name]) for name in ("first updates", "generate", "second updates")] == [10, 1, 10]
    assert list(trained["memory_mib"]) == ["model", "after the first updates", "after generating", "after the release",
                                           "after the second updates"]
    assert 0 < sharded["largest_difference"] < 0.02
    assert all(losses[-1] < losses[0] for losses in sharded["losses"].values())
    rows = {"fast path", "AudioCraft MAGNeT", "bfloat16"}
    assert rows <= entries["decode-small-10s-batch8"]["result"]["cases"][0]["decode"].keys()
    before = {name: (tmp_path / f"{name}.json").stat().st_mtime_ns for name in first_hour.MEASURED}
    main(command)
    assert before == {name: (tmp_path / f"{name}.json").stat().st_mtime_ns for name in first_hour.MEASURED}
    assert "| fsdp | success |" in capsys.readouterr().out
