"""The work of the page: one request after another in a thread of its own, which can be watched and cancelled."""
import collections
import threading
import typing as tp
from concurrent.futures import ThreadPoolExecutor

PERIOD = 0.2            # seconds between two looks at a running job


class Cancelled(Exception):
    """The work was cancelled by the visitor, or the visitor has left."""


class Job:
    """A piece of work.

    Args:
        work: called with this job; it calls `check` or `progress` often, which is where it can be cancelled.

    Attributes:
        label: what is being made.
        done, total: steps of it that are done, and steps in all.
        part: what is finished of it so far; for the page, as plain values.
        finished: set after the end.
        error: what ended the work early, if anything did.
    """

    def __init__(self, work: tp.Callable[["Job"], None]) -> None:
        self._work, self._cancelled = work, threading.Event()
        self.finished = threading.Event()
        self.error: tp.Optional[BaseException] = None
        self.begin("")

    def begin(self, label: str) -> None:
        """Start a clip; raises Cancelled like `check`."""
        self.label, self.done, self.total = label, 0, 0
        self.part: dict[str, tp.Any] = {}
        self.check()

    def progress(self, done: int, total: int) -> None:
        """Note how far the clip is; raises Cancelled like `check`."""
        self.done, self.total = done, total
        self.check()

    def check(self) -> None:
        """Raise Cancelled if the work is no longer wanted."""
        if self._cancelled.is_set():
            raise Cancelled

    def cancel(self) -> None:
        """End the work at its next step."""
        self._cancelled.set()

    def run(self) -> None:
        """Do the work."""
        try:
            self.check()
            self._work(self)
        except BaseException as error:
            self.error = error
        finally:
            self.finished.set()


class JobQueue:
    """Runs jobs one at a time, in the order in which they came.

    Args:
        max_waiting: number of jobs that may wait for the one that runs.
    """

    def __init__(self, max_waiting: int) -> None:
        self._max_waiting, self._lock = max_waiting, threading.Lock()
        self._jobs: collections.deque[Job] = collections.deque()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="magnet-app")

    def submit(self, work: tp.Callable[[Job], None]) -> Job:
        """Put work at the end of the queue.

        Raises:
            ValueError: too many are waiting.
        """
        with self._lock:
            if len(self._jobs) > self._max_waiting:
                raise ValueError(f"{len(self._jobs)} requests are waiting already; try again in a minute")
            job = Job(work)
            self._jobs.append(job)
        self._thread.submit(self._run, job)
        return job

    def _run(self, job: Job) -> None:
        try:
            job.run()
        finally:
            with self._lock:
                self._jobs.remove(job)

    def ahead(self, job: Job) -> int:
        """Number of jobs that run before this one."""
        with self._lock:
            return self._jobs.index(job) if job in self._jobs else 0

    def watch(self, job: Job) -> tp.Iterator[int]:
        """Yield the number of jobs ahead from time to time until the job ends, and then raise its error.

        A watcher that stops watching, because the visitor has left, cancels the job.
        """
        try:
            yield self.ahead(job)
            while not job.finished.wait(PERIOD):
                yield self.ahead(job)
        finally:
            job.cancel()
        if job.error is not None:
            raise job.error

    def close(self) -> None:
        """Cancel everything and wait for the end."""
        with self._lock:
            for job in self._jobs:
                job.cancel()
        self._thread.shutdown()
