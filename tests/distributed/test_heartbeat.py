"""Heartbeats of three ranks, each in a thread of this process."""
import logging
import socket
import threading
import time
import typing as tp

import pytest

from magnet_plugin.distributed import heartbeat
from magnet_plugin.distributed.heartbeat import Connection, Heartbeat


class Group:
    """Three connected ranks."""

    def __init__(self, timeout: float) -> None:
        self.ended: list[int] = []
        self.ranks = [Heartbeat(rank, 3, timeout, "solver.log.{}".format, lambda rank=rank: self.ended.append(rank))
                      for rank in range(3)]
        shared, ready = [], threading.Event()

        def broadcast(value: tp.Any) -> tp.Any:
            if value[1]:
                shared.append(["127.0.0.1", *value[1:]])
                ready.set()
            ready.wait()
            return shared[0]
        threads = [threading.Thread(target=rank.start, args=(broadcast,)) for rank in self.ranks]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def break_connections(self, rank: int) -> None:
        """Close a rank's connections as the kernel does for a killed process; the rank itself reports nothing."""
        self.ranks[rank]._closed = True
        for connection in self.ranks[rank].connections.values():
            connection.sock.shutdown(socket.SHUT_RDWR)

    def verdicts(self, *which: int) -> list[tp.Optional[str]]:
        """The verdicts of these ranks, as soon as all of them have one."""
        wait_for(lambda: all(self.ranks[rank].verdict for rank in which))
        return [self.ranks[rank].verdict for rank in which]


def wait_for(condition: tp.Callable[[], tp.Any]) -> None:
    end = time.monotonic() + 10
    while time.monotonic() < end and not condition():
        time.sleep(0.01)


@pytest.fixture
def group_of(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> tp.Iterator[tp.Callable[[float], Group]]:
    """Makes a group with a timeout in seconds."""
    monkeypatch.setattr(heartbeat, "INTERVAL", 0.05)
    monkeypatch.setattr(heartbeat, "GRACE", 0.3)
    monkeypatch.setattr(heartbeat, "CAUSE_WAIT", 0.3)
    caplog.set_level(logging.ERROR)
    groups: list[Group] = []
    yield lambda timeout: groups.append(Group(timeout)) or groups[-1]  # type: ignore[func-returns-value]
    for group in groups:
        for rank in group.ranks:
            rank.close()


@pytest.mark.parametrize("failing", (0, 2))
def test_a_failure_reaches_all_ranks_and_ends_them(group_of: tp.Callable, failing: int,
                                                   caplog: pytest.LogCaptureFixture) -> None:
    group = group_of(60.0)
    others = [rank for rank in range(3) if rank != failing]
    group.ranks[failing].set_status("train, epoch 1, update 3 of 7")
    wait_for(lambda: all(group.ranks[rank].statuses[failing][0] != "starting" for rank in others))
    group.ranks[failing].fail(ValueError("no such codec\nsecond line"))
    assert group.verdicts(*others) == [f"rank {failing} failed: ValueError: no such codec"] * 2
    assert group.ranks[failing].verdict is None
    lines = [record.message for record in caplog.records if record.message.startswith(f"Rank {failing} of 3 failed")]
    assert len(lines) == 2 and all("update 3 of 7" in line and f"solver.log.{failing}" in line for line in lines)
    wait_for(lambda: len(group.ended) == 3)
    assert sorted(group.ended) == [0, 1, 2]


@pytest.mark.parametrize("failing", (0, 1))
def test_a_broken_connection_is_reported_as_a_death_at_once(group_of: tp.Callable, failing: int) -> None:
    group = group_of(60.0)
    group.break_connections(failing)
    for verdict in group.verdicts(*(rank for rank in range(3) if rank != failing)):
        assert verdict is not None and verdict.startswith(f"rank {failing} died without an error message")


@pytest.mark.parametrize("failing", (0, 1))
def test_silence_is_reported_after_the_timeout(group_of: tp.Callable, failing: int, monkeypatch: pytest.MonkeyPatch) -> None:
    group = group_of(0.8)
    time.sleep(1.2)
    assert not any(rank.verdict for rank in group.ranks), "as long as all ranks send heartbeats"
    silent, send = set(group.ranks[failing].connections.values()), Connection.send
    monkeypatch.setattr(Connection, "send",
                        lambda connection, **message: None if connection in silent else send(connection, **message))
    for verdict in group.verdicts(*(rank for rank in range(3) if rank != failing)):
        assert verdict is not None and verdict.startswith(f"rank {failing} has been silent for 0.8 s (distrib.timeout)")


def test_a_rank_that_ends_normally_is_not_reported(group_of: tp.Callable) -> None:
    group = group_of(0.5)
    group.ranks[1].close()
    group.break_connections(1)
    time.sleep(1.0)
    assert group.ranks[0].verdict is None and group.ranks[2].verdict is None and not group.ended


def test_connections_may_be_iterated_while_a_peer_disconnects(group_of: tp.Callable) -> None:
    """`close` and `fail` run in the main thread, and the heartbeat thread removes peers that have ended."""
    group = group_of(60.0)
    iterator = iter(group.ranks[0].connections.items())
    seen = [next(iterator)]
    group.ranks[2].close()
    wait_for(lambda: 2 not in group.ranks[0].connections)
    seen += iterator
    assert {rank for rank, _ in seen} == {1, 2} and set(group.ranks[0].connections) == {1}


def test_a_collective_that_fails_because_of_another_rank_is_not_reported_as_a_failure(
        group_of: tp.Callable, caplog: pytest.LogCaptureFixture) -> None:
    group = group_of(60.0)
    group.break_connections(1)
    group.ranks[0].fail(RuntimeError("Connection closed by peer"))
    verdict = group.verdicts(0, 2)[1]
    assert verdict is not None and verdict.startswith("rank 1 died")
    assert "This rank failed" not in caplog.text


def test_a_collective_that_timed_out_reports_the_status_of_all_ranks(group_of: tp.Callable,
                                                                     caplog: pytest.LogCaptureFixture) -> None:
    group = group_of(60.0)
    group.ranks[1].set_status("train, epoch 2, update 5 of 7")
    group.ranks[0].set_status("train, epoch 2, update 6 of 7")
    wait_for(lambda: group.ranks[0].statuses[1][0] != "starting")
    group.ranks[0].fail(RuntimeError("Timed out waiting 60000ms for recv operation to complete"))
    [verdict] = group.verdicts(2)
    assert verdict is not None and "distrib.timeout=60 s" in verdict
    assert "update 5 of 7" in verdict and "solver.log.1" in verdict
    assert "The log of the rank that is behind has the cause." in caplog.text


def test_a_connection_without_the_token_is_refused() -> None:
    rank = Heartbeat(0, 2, 60.0, str, lambda: None)
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(5)

        def connect(token: str) -> Connection:
            connection = Connection(socket.create_connection(server.getsockname()))
            connection.send(rank=1, token=token)
            return connection
        stranger, peer = connect("guessed"), connect("right")
        stranger.sock.sendall(b"no line at all")
        rank._accept(server, "right")
        assert rank.connections[1].sock.getpeername() == peer.sock.getsockname()
