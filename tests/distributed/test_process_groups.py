"""What several ranks share, and how they watch each other."""
import logging
import threading
import time
import typing as tp

import pytest
import torch

from magnet_plugin.distributed import heartbeat as watch
from magnet_plugin.distributed import process_groups as ranks
from magnet_plugin.distributed import reduction as training
from magnet_plugin.distributed.heartbeat import Watch


@pytest.mark.parametrize("world", (1, 2, 3, 8))
@pytest.mark.parametrize("length", (1, 2, 5, 8, 17))
def test_ranks_validate_with_equally_many_clips_and_all_of_them(length: int, world: int) -> None:
    shares = [training.share_of(length, rank, world) for rank in range(world)]
    assert {len(share) for share in shares} == {-(-length // world)}
    held = sorted(index for share in shares for index in share)
    assert set(held) == set(range(length)) and len(held) - length < world, "none twice but to fill up"


def test_a_mean_over_ranks_is_a_sum_over_their_number(monkeypatch: pytest.MonkeyPatch) -> None:
    counts = torch.tensor([3, 0])
    assert training.mean_over_ranks(counts).tolist() == [3.0, 0.0], "one rank: its own"
    monkeypatch.setattr(training.flashy.distrib, "is_distributed", lambda: True)
    monkeypatch.setattr(training.flashy.distrib, "world_size", lambda: 4)
    monkeypatch.setattr(torch.distributed, "all_reduce", lambda value: value.add_(7))
    assert training.mean_over_ranks(counts).tolist() == [2.5, 1.75]
    assert counts.tolist() == [3, 0], "what is given stays"


@pytest.mark.parametrize("timeout", (0, -1, float("nan"), float("inf"), "soon", True, None))
def test_a_timeout_that_is_none_is_refused(timeout: tp.Any) -> None:
    with pytest.raises(ValueError, match="distrib.timeout"):
        ranks.check_timeout(timeout)


class Ranks:
    """Watches of three ranks in threads of this process."""

    def __init__(self, timeout: float) -> None:
        self.ended: list[int] = []
        self.watches = [Watch(rank, 3, timeout, "solver.log.{}".format, lambda rank=rank: self.ended.append(rank))
                        for rank in range(3)]
        told, told_event = [], threading.Event()

        def share(value: tp.Any) -> tp.Any:
            if value[1]:
                told.append(["127.0.0.1", *value[1:]])
                told_event.set()
            told_event.wait()
            return told[0]
        starts = [threading.Thread(target=each.start, args=(share,)) for each in self.watches]
        for start in starts:
            start.start()
        for start in starts:
            start.join()

    def wait(self, *which: int) -> list[tp.Optional[str]]:
        """The verdicts of these ranks."""
        end = time.monotonic() + 10
        while time.monotonic() < end and not all(self.watches[rank].verdict for rank in which):
            time.sleep(0.02)
        return [self.watches[rank].verdict for rank in which]


@pytest.fixture
def three(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> tp.Iterator[tp.Callable[[float], Ranks]]:
    monkeypatch.setattr(watch, "BEAT", 0.05)
    monkeypatch.setattr(watch, "GRACE", 0.3)
    monkeypatch.setattr(watch, "DOUBT", 0.3)
    caplog.set_level(logging.ERROR)
    made: list[Ranks] = []
    yield lambda timeout: made.append(Ranks(timeout)) or made[-1]  # type: ignore[func-returns-value]
    for each in made:
        for one in each.watches:
            one.close()


@pytest.mark.parametrize("loser", (0, 2))
def test_all_ranks_are_told_of_a_failure_and_end(three: tp.Callable, loser: int, caplog: pytest.LogCaptureFixture) -> None:
    made = three(60.0)
    made.watches[loser].note("train, epoch 1, update 3 of 7")
    time.sleep(0.2)
    made.watches[loser].fail(ValueError("no such codec\nsecond line"))
    others = [rank for rank in range(3) if rank != loser]
    assert made.wait(*others) == [f"rank {loser} failed: ValueError: no such codec"] * 2
    assert made.watches[loser].verdict is None
    lines = [record.message for record in caplog.records if record.message.startswith(f"Rank {loser} of 3 failed")]
    assert len(lines) == 2 and all("update 3 of 7" in line and f"solver.log.{loser}" in line for line in lines)
    time.sleep(0.6)
    assert sorted(made.ended) == [0, 1, 2]


@pytest.mark.parametrize("loser", (0, 1))
def test_a_connection_that_breaks_is_a_death(three: tp.Callable, loser: int) -> None:
    made = three(60.0)
    for link in list(made.watches[loser]._links.values()):
        link.sock.shutdown(2)                               # what the kernel does for a killed process
    others = [rank for rank in range(3) if rank != loser]
    for verdict in made.wait(*others):
        assert verdict is not None and verdict.startswith(f"rank {loser} ended without a word")


@pytest.mark.parametrize("loser", (0, 1))
def test_silence_is_noticed_after_the_timeout(three: tp.Callable, loser: int, monkeypatch: pytest.MonkeyPatch) -> None:
    made = three(0.8)
    time.sleep(1.2)
    assert not any(each.verdict for each in made.watches), "as long as all speak"
    stopped = set(made.watches[loser]._links.values()) | {made.watches[loser]._links.get(0)}
    send = watch.Link.send
    monkeypatch.setattr(watch.Link, "send", lambda link, **message: None if link in stopped else send(link, **message))
    others = [rank for rank in range(3) if rank != loser]
    for verdict in made.wait(*others):
        assert verdict is not None and verdict.startswith(f"rank {loser} has been silent for 0.8 s (distrib.timeout)")


def test_who_ends_as_it_should_is_not_missed(three: tp.Callable) -> None:
    made = three(0.5)
    made.watches[1].close()
    for link in made.watches[1]._links.values():
        link.sock.shutdown(2)
    time.sleep(1.0)
    assert made.watches[0].verdict is None and made.watches[2].verdict is None and not made.ended


def test_a_collective_that_fails_for_another_rank_is_not_blamed_on_this_one(three: tp.Callable,
                                                                           caplog: pytest.LogCaptureFixture) -> None:
    made = three(60.0)
    for link in list(made.watches[1]._links.values()):
        link.sock.shutdown(2)
    made.watches[0].fail(RuntimeError("Connection closed by peer"))
    assert made.wait(0, 2)[1].startswith("rank 1 ended")
    assert "This rank failed" not in caplog.text


def test_a_collective_that_timed_out_tells_where_all_ranks_are(three: tp.Callable, caplog: pytest.LogCaptureFixture) -> None:
    made = three(60.0)
    made.watches[1].note("train, epoch 2, update 5 of 7")
    made.watches[0].note("train, epoch 2, update 6 of 7")
    time.sleep(0.3)
    made.watches[0].fail(RuntimeError("Timed out waiting 60000ms for recv operation to complete"))
    [told] = made.wait(2)
    assert told is not None and "distrib.timeout=60 s" in told and "update 5 of 7" in told and "solver.log.1" in told
    assert "The one that is behind" in caplog.text


def test_a_stranger_is_not_listened_to(three: tp.Callable) -> None:
    import socket
    one = Watch(0, 2, 60.0, str, lambda: None)
    server = socket.create_server(("127.0.0.1", 0))
    server.settimeout(5)

    def call(token: str) -> watch.Link:
        link = watch.Link(socket.create_connection(server.getsockname()))
        link.send(rank=1, token=token)
        return link
    strangers = [call("guessed"), call("right")]
    strangers[0].sock.sendall(b"no line at all")
    one._accept(server, "right")
    assert one._links[1].sock.getpeername() == strangers[1].sock.getsockname()
    server.close()
