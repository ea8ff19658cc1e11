"""Heartbeat between ranks: a rank that dies, fails or hangs ends the whole job, and every log names it and its cause.

Each rank holds a TCP connection to rank 0 and sends its status over it once per interval. A connection that breaks reports a
death at once, whatever the backend of the collectives. Silence reports a rank that was stopped or a machine that is gone.
Rank 0 forwards what it detects. A rank that learns of a lost peer writes the peer, its last status and its log file to its
own log and ends, even from within a collective that will never return.

torch's `TCPStore`, on which torch elastic is built, cannot replace this: it does not report that a client has disconnected,
so a killed rank would be noticed only after the timeout.
"""
import json
import logging
import os
import select
import socket
import sys
import threading
import time
import typing as tp

logger = logging.getLogger(__name__)

#: Seconds between two heartbeats; a fifth of the timeout if that is less.
INTERVAL = 1.0
#: Seconds between the report of a lost rank and the end of this process, in which it may end by itself with a traceback.
GRACE = 5.0
#: Seconds to wait, after a collective has failed, for the report that another rank is the cause.
CAUSE_WAIT = 3.0
#: Seconds for the ranks to connect.
CONNECT_TIMEOUT = 60.0


class Connection:
    """Exchange JSON messages over a socket, one per line."""

    def __init__(self, sock: socket.socket) -> None:
        sock.settimeout(GRACE)                      # limits how long a peer that does not read can block us
        self.sock, self._rest, self._lock = sock, b"", threading.Lock()

    def fileno(self) -> int:
        return self.sock.fileno()

    def send(self, **message: tp.Any) -> None:
        """Send a message. A broken connection is ignored here, because `receive` reports it."""
        try:
            with self._lock:
                self.sock.sendall(json.dumps(message).encode() + b"\n")
        except OSError:
            pass

    def receive(self) -> tp.Optional[list[dict]]:
        """Return the messages that have arrived, or None if the connection is closed or the data is malformed."""
        try:
            data = self.sock.recv(1 << 16)
            *lines, self._rest = (self._rest + data).split(b"\n")
            return [json.loads(line) for line in lines] if data else None
        except (OSError, ValueError):
            return None


class Heartbeat:
    """The heartbeat of one rank. Call `start` on every rank, then `set_status`, and at the end `close` or `fail`.

    Args:
        rank: rank of this process.
        world_size: number of ranks.
        timeout: seconds of silence after which a peer counts as lost.
        log_of: returns the path of a rank's log, for messages.
        end: called when the process has to end; `os._exit(1)` by default.

    Attributes:
        verdict: which rank is lost and why; None as long as all are alive.
        connections: open connections by rank. The dict is replaced and never changed, so any thread may iterate over it.
        statuses: what each rank is doing, and since when (`time.monotonic()` of this process).
    """

    def __init__(self, rank: int, world_size: int, timeout: float, log_of: tp.Callable[[int], str],
                 end: tp.Optional[tp.Callable[[], None]] = None) -> None:
        self.rank, self.world_size, self.timeout, self.log_of = rank, world_size, timeout, log_of
        self.verdict: tp.Optional[str] = None
        self.connections: dict[int, Connection] = {}
        now = time.monotonic()
        self.statuses = [("starting", now)] * world_size
        self._last_message = [now] * world_size
        self._lost = threading.Event()
        self._closed = False
        self._end = end or (lambda: os._exit(1))

    @property
    def closed(self) -> bool:
        """Whether this rank has announced its end."""
        return self._closed

    def start(self, broadcast: tp.Callable[[tp.Any], tp.Any]) -> None:
        """Connect the ranks and start the heartbeat thread.

        Args:
            broadcast: collective operation that returns rank 0's argument on every rank.
        """
        server = None
        if self.rank == 0:
            server = socket.create_server(("", 0), backlog=self.world_size)
            server.settimeout(CONNECT_TIMEOUT)
        address = os.environ.get("MASTER_ADDR") or socket.gethostname()
        host, port, token = broadcast([address, server and server.getsockname()[1], os.urandom(16).hex()])
        try:
            if server is not None:
                self._accept(server, token)
            else:
                connection = Connection(socket.create_connection((host, port), CONNECT_TIMEOUT))
                connection.send(rank=self.rank, token=token)
                self.connections = {0: connection}
        except (OSError, ValueError) as error:
            logger.warning("No heartbeat between ranks: cannot connect to %s, port %s (%s). A rank that dies will be "
                           "noticed only after distrib.timeout=%g s. Allow TCP connections between the machines of this "
                           "job.", host, port, error, self.timeout)
        finally:
            if server is not None:
                server.close()
        threading.Thread(target=self._run, daemon=True, name="heartbeat").start()

    def _accept(self, server: socket.socket, token: str) -> None:
        while len(self.connections) < self.world_size - 1:
            connection = Connection(server.accept()[0])
            hello = (connection.receive() or [{}])[0]
            if hello.get("token") == token:
                self.connections = {**self.connections, hello["rank"]: connection}

    def set_status(self, status: str) -> None:
        """Set what this rank is doing. The status appears in messages about a lost rank and about a timeout."""
        self.statuses[self.rank] = status, time.monotonic()

    def close(self) -> None:
        """Announce that this rank ends normally."""
        self._closed = True
        for connection in self.connections.values():
            connection.send(bye=True)

    def fail(self, error: BaseException) -> None:
        """Report that this rank ends with an error, unless the error follows from the loss of another rank."""
        text = f"{type(error).__name__}: {error}".split("\n")[0][:500]
        collective = isinstance(error, RuntimeError)            # the type that torch.distributed raises
        if collective:
            self._lost.wait(CAUSE_WAIT)
        if self.verdict is None:
            logger.error("This rank failed %s: %s", self._status_of(self.rank), text, exc_info=error)
            if collective and "time" in text.lower() and "out" in text.lower():
                statuses = "; ".join(f"rank {rank} {self._status_of(rank)}, log {self.log_of(rank)}"
                                     for rank in range(self.world_size))
                text = f"waited longer than distrib.timeout={self.timeout:g} s for the other ranks; {statuses}"
                logger.error("It %s. The log of the rank that is behind has the cause.", text)
            self._beat()                                        # so that peers report the present status
            for connection in self.connections.values():
                connection.send(failed=text)
        self._closed = True
        timer = threading.Timer(GRACE, self._end)               # the clean-up of a backend may hang
        timer.daemon = True
        timer.start()

    def _status_of(self, rank: int) -> str:
        status, since = self.statuses[rank]
        return f"({status}, for {time.monotonic() - since:.0f} s)"

    def _run(self) -> None:
        interval = min(INTERVAL, self.timeout / 5)
        while self.verdict is None and not self._closed and self.connections:
            self._beat()
            ready, _, _ = select.select(list(self.connections.values()), [], [], interval)
            for rank, connection in self.connections.items():
                if connection in ready:
                    self._handle(rank, connection.receive())
                elif time.monotonic() - self._last_message[rank] > self.timeout:
                    self._report_lost(rank, f"has been silent for {self.timeout:g} s (distrib.timeout): it was stopped, or "
                                      "its machine is gone")
        if self.verdict is not None:
            time.sleep(GRACE)
            sys.stderr.flush()
            self._end()

    def _beat(self) -> None:
        now = time.monotonic()
        known = [self.rank] if self.rank else range(self.world_size)
        statuses = {str(rank): [self.statuses[rank][0], now - self.statuses[rank][1]] for rank in known}
        for connection in self.connections.values():
            connection.send(statuses=statuses)

    def _handle(self, rank: int, messages: tp.Optional[list[dict]]) -> None:
        if messages is None:
            self._disconnect(rank)
            self._report_lost(rank, "died without an error message: it was killed (out of memory, a signal) or it crashed")
            return
        now = self._last_message[rank] = time.monotonic()
        for message in messages:
            for other, (status, age) in message.get("statuses", {}).items():
                if int(other) != self.rank:
                    self.statuses[int(other)] = status, now - age
            if "failed" in message:
                self._report_lost(rank, f"failed: {message['failed']}")
            elif "lost" in message:
                self._report_lost(message["lost"], message["reason"])
            elif "bye" in message:
                self._disconnect(rank)

    def _disconnect(self, rank: int) -> None:
        self.connections = {other: connection for other, connection in self.connections.items() if other != rank}

    def _report_lost(self, rank: int, reason: str) -> None:
        if self.verdict is not None or self._closed or rank == self.rank:
            return
        self.verdict = f"rank {rank} {reason}"
        logger.error("Rank %d of %d %s. Its last status: %s. See its log for the cause: %s", rank, self.world_size, reason,
                     self._status_of(rank), self.log_of(rank))
        self._lost.set()
        self._beat()
        for other, connection in self.connections.items():
            if other != rank:
                connection.send(lost=rank, reason=reason)
