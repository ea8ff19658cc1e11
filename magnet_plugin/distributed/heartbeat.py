"""Ranks that watch each other, so that one that died ends the job with its cause instead of leaving the others waiting.

Each rank holds a TCP connection to the first and says on it, every second, that it lives and where it is. A connection
that breaks tells of a death at once, whatever the backend of the collectives; silence tells of a rank that was stopped or of
a machine that is gone. The first rank tells the others what it found. A rank that learns that another is lost names it in
its own log and ends, also when it is in a collective that will never return.
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

#: Seconds between two signs of life; less where the timeout is short.
BEAT = 1.0
#: Seconds in which a rank that knows the cause may still end by itself, with its traceback.
GRACE = 5.0
#: Seconds in which a failing collective may turn out to be another rank's fault.
DOUBT = 3.0
#: Seconds for the ranks to find each other.
MEETING = 60.0


class Link:
    """JSON, a line each, over a socket."""

    def __init__(self, sock: socket.socket) -> None:
        sock.settimeout(GRACE)                      # a reader that is stopped may not stop us for longer
        self.sock, self._rest, self._lock = sock, b"", threading.Lock()

    def fileno(self) -> int:
        return self.sock.fileno()

    def send(self, **message: tp.Any) -> None:
        """Send, or do not: a broken connection is noticed where it is read."""
        try:
            with self._lock:
                self.sock.sendall(json.dumps(message).encode() + b"\n")
        except OSError:
            pass

    def read(self) -> tp.Optional[list[dict]]:
        """What has come; None at the end, or where it makes no sense."""
        try:
            data = self.sock.recv(1 << 16)
            *lines, self._rest = (self._rest + data).split(b"\n")
            return [json.loads(line) for line in lines] if data else None
        except (OSError, ValueError):
            return None


class Watch:
    """One rank's part. `start` it on every rank, `note` where the rank is, and end with `close` or `fail`.

    Args:
        rank: of this process.
        world: number of ranks.
        timeout: seconds of silence after which a rank counts as lost.
        log_of: where a rank's log lies, for messages.
        end: called with no argument when the process has to end; os._exit(1) where None.
    """

    def __init__(self, rank: int, world: int, timeout: float, log_of: tp.Callable[[int], str],
                 end: tp.Optional[tp.Callable[[], None]] = None) -> None:
        self.rank, self.world, self.timeout, self.log_of = rank, world, timeout, log_of
        self.verdict: tp.Optional[str] = None       # who is lost, and how
        self.where = dict.fromkeys(range(world), "starting")
        self._since = {other: time.monotonic() for other in range(world)}      # it is there
        self._heard = dict(self._since)
        self._links: dict[int, Link] = {}
        self._known = threading.Event()
        self._closed = False
        self._end = end or (lambda: os._exit(1))

    def start(self, share: tp.Callable[[tp.Any], tp.Any]) -> None:
        """Connect the ranks and begin to watch.

        Args:
            share: gives every rank what the first one passes; a collective.
        """
        server = None
        if self.rank == 0:
            server = socket.create_server(("", 0), backlog=self.world)
            server.settimeout(MEETING)
        token = os.urandom(16).hex()
        host = os.environ.get("MASTER_ADDR") or socket.gethostname()
        host, port, token = share([host, server and server.getsockname()[1], token])
        try:
            if server is not None:
                self._accept(server, token)
            else:
                link = Link(socket.create_connection((host, port), MEETING))
                link.send(rank=self.rank, token=token)
                self._links[0] = link
        except (OSError, ValueError) as error:
            logger.warning("Ranks cannot watch each other (%s, port %s: %s): one that dies is noticed by "
                           "distrib.timeout=%g s alone.", host, port, error, self.timeout)
        finally:
            if server is not None:
                server.close()
        threading.Thread(target=self._run, daemon=True, name="watch").start()

    def _accept(self, server: socket.socket, token: str) -> None:
        while len(self._links) < self.world - 1:
            link = Link(server.accept()[0])
            hello = (link.read() or [{}])[0]
            if hello.get("token") == token:
                self._links[hello["rank"]] = link

    def note(self, where: str) -> None:
        """Say where this rank is; told when it is lost, and with the others' when a collective times out."""
        self.where[self.rank], self._since[self.rank] = where, time.monotonic()

    def close(self) -> None:
        """This rank ends as it should, and is not missed."""
        self._closed = True
        for link in list(self._links.values()):
            link.send(bye=True)

    def fail(self, error: BaseException) -> None:
        """This rank ends by an error: tell the others, unless it follows from another rank's end."""
        text = f"{type(error).__name__}: {error}".split("\n")[0][:500]
        collective = isinstance(error, RuntimeError)            # what those of torch.distributed are
        if collective:
            self._known.wait(DOUBT)
        if self.verdict is None:
            logger.error("This rank failed %s: %s", self._place(self.rank), text, exc_info=error)
            if collective and "time" in text.lower() and "out" in text.lower():
                text = f"waited longer than distrib.timeout={self.timeout:g} s for the others; {self._places()}"
                logger.error("It %s. The one that is behind has the cause in its log.", text)
            for link in list(self._links.values()):
                link.send(failed=text)
        self._closed = True
        later = threading.Timer(GRACE, self._end)               # a backend's own clean-up may hang
        later.daemon = True
        later.start()

    def _place(self, rank: int) -> str:
        return f"({self.where[rank]}, for {time.monotonic() - self._since[rank]:.0f} s)"

    def _places(self) -> str:
        return "; ".join(f"rank {rank} {self._place(rank)}, log {self.log_of(rank)}" for rank in range(self.world))

    def _run(self) -> None:
        beat = min(BEAT, self.timeout / 5)
        while self.verdict is None and not self._closed and self._links:
            self._tell()
            ready, _, _ = select.select(list(self._links.values()), [], [], beat)
            for rank, link in list(self._links.items()):
                if link in ready:
                    self._hear(rank, link.read())
                elif time.monotonic() - self._heard[rank] > self.timeout:
                    self._lost(rank, f"has been silent for {self.timeout:g} s (distrib.timeout): it was stopped, or its "
                                     "machine is gone")
        if self.verdict is not None:
            time.sleep(GRACE)
            sys.stderr.flush()
            self._end()

    def _tell(self) -> None:
        now = time.monotonic()
        own = [self.rank] if self.rank else range(self.world)
        places = {str(rank): [self.where[rank], now - self._since[rank]] for rank in own}
        for link in list(self._links.values()):
            link.send(places=places)

    def _hear(self, rank: int, messages: tp.Optional[list[dict]]) -> None:
        if messages is None:
            del self._links[rank]
            self._lost(rank, "ended without a word: it was killed (memory, a signal) or it crashed")
            return
        now = self._heard[rank] = time.monotonic()
        for message in messages:
            for other, (where, age) in message.get("places", {}).items():
                if int(other) != self.rank:
                    self.where[int(other)], self._since[int(other)] = where, now - age
            if "failed" in message:
                self._lost(rank, f"failed: {message['failed']}")
            elif "lost" in message:
                self._lost(message["lost"], message["how"])
            elif "bye" in message:
                self._links.pop(rank, None)

    def _lost(self, rank: int, how: str) -> None:
        if self.verdict is not None or self._closed or rank == self.rank:
            return
        self.verdict = f"rank {rank} {how}"
        logger.error("Rank %d of %d %s. It was last here: %s. The cause is in its log: %s", rank, self.world, how,
                     self._place(rank), self.log_of(rank))
        self._known.set()
        for other, link in list(self._links.items()):
            if other != rank:
                link.send(lost=rank, how=how)
