"""One request at a time, in order, each of which can be cancelled."""
import threading
import time
import typing as tp

import pytest

from magnet_plugin.app.web.jobs import Cancelled, Job, JobQueue


@pytest.fixture
def queue() -> tp.Iterator[JobQueue]:
    made = JobQueue(max_waiting=2)
    yield made
    made.close()


def until_cancelled(started: threading.Event) -> tp.Callable[[Job], None]:
    """Return work that goes on until it is cancelled."""
    def work(job: Job) -> None:
        job.begin("x")
        started.set()
        while True:
            job.progress(1, 2)
            time.sleep(0.005)

    return work


def test_jobs_run_one_after_another_in_order(queue: JobQueue) -> None:
    running, order = [0], []

    def work(job: Job) -> None:
        running[0] += 1
        assert running[0] == 1
        time.sleep(0.02)
        order.append(job)
        running[0] -= 1

    jobs = [queue.submit(work) for _ in range(3)]
    for job in jobs:
        list(queue.watch(job))
    assert order == jobs


def test_cancelling_ends_running_and_waiting_jobs(queue: JobQueue) -> None:
    started = threading.Event()
    first, second, third = map(queue.submit, (until_cancelled(started), lambda job: None, lambda job: None))
    assert started.wait(5) and (first.label, first.done, first.total) == ("x", 1, 2)
    assert [queue.ahead(job) for job in (first, second, third)] == [0, 1, 2]
    second.cancel()
    first.cancel()
    for job in (first, second):
        with pytest.raises(Cancelled):
            list(queue.watch(job))
    assert list(queue.watch(third))[0] in (0, 1, 2) and third.error is None


def test_too_many_waiting_jobs_are_refused(queue: JobQueue) -> None:
    jobs = [queue.submit(until_cancelled(threading.Event())) for _ in range(3)]
    with pytest.raises(ValueError, match="3 requests are waiting already"):
        queue.submit(lambda job: None)
    for job in jobs:
        job.cancel()


def test_a_visitor_who_leaves_cancels_the_job(queue: JobQueue) -> None:
    job = queue.submit(until_cancelled(threading.Event()))
    watcher = queue.watch(job)
    next(watcher)
    tp.cast(tp.Any, watcher).close()
    assert job.finished.wait(5) and isinstance(job.error, Cancelled)


def test_errors_reach_the_watcher_and_not_the_next_job(queue: JobQueue) -> None:
    def broken(job: Job) -> None:
        raise KeyError("a fault")

    with pytest.raises(KeyError, match="a fault"):
        list(queue.watch(queue.submit(broken)))
    list(queue.watch(queue.submit(lambda job: None)))
