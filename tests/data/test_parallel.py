from __future__ import annotations

import math
import os

import pytest

from magnet_plugin.data.parallel import parallel_map


@pytest.mark.parametrize("jobs", [1, 3])
def test_results_are_in_order(jobs: int) -> None:
    numbers = list(range(100))
    assert parallel_map(math.sqrt, numbers, jobs, progress=False) == [math.sqrt(n) for n in numbers]
    assert parallel_map(math.sqrt, [], jobs, progress=False) == []


@pytest.mark.parametrize("jobs", [1, 2])
def test_exceptions_reach_the_caller(jobs: int) -> None:
    with pytest.raises(ValueError, match="math domain"):
        parallel_map(math.sqrt, [1.0, 2.0, -1.0, 4.0], jobs, progress=False)


def test_a_worker_that_dies_raises() -> None:
    with pytest.raises(ChildProcessError, match="one of 2 worker processes.*use fewer"):
        parallel_map(os._exit, [1, 1], 2, progress=False)
