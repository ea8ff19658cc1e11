from __future__ import annotations

import math
import os

import pytest

from magnet_plugin.data.parallel import default_jobs, parallel_map


@pytest.mark.parametrize("jobs", [1, 3])
def test_order_is_kept(jobs: int) -> None:
    numbers = list(range(100))
    assert parallel_map(math.sqrt, numbers, jobs, progress=False) == [math.sqrt(n) for n in numbers]
    assert parallel_map(math.sqrt, [], jobs, progress=False) == []


@pytest.mark.parametrize("jobs", [1, 2])
def test_errors_come_back(jobs: int) -> None:
    with pytest.raises(ValueError, match="math domain"):
        parallel_map(math.sqrt, [1.0, 2.0, -1.0, 4.0], jobs, progress=False)


def test_a_lost_worker_is_told() -> None:
    with pytest.raises(RuntimeError, match="lower `jobs`"):
        parallel_map(os._exit, [1, 1], 2, progress=False)


def test_jobs_are_the_cores_given_to_this_process() -> None:
    assert 1 <= default_jobs() <= (os.cpu_count() or 1)


def test_printing_does_not_mix_with_results() -> None:
    assert parallel_map(print, ["noise"] * 4, 2, progress=False) == [None] * 4
