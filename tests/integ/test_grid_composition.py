"""Every job of every grid, composed by Dora and Hydra."""
import pytest

from ..helpers.grid_jobs import NAMES, SCALES, jobs_of

pytestmark = pytest.mark.integ


@pytest.mark.parametrize("scale", SCALES)
def test_the_fast_composition_in_quick_tests_equals_doras(scale: str) -> None:
    from magnet_plugin.train import main
    for name in NAMES:
        for fast, real in zip(jobs_of(scale, name), jobs_of(scale, name, main), strict=True):
            assert [job.sig for job in fast] == [job.sig for job in real], name
            for one, other in zip(fast, real, strict=True):
                assert one.cfg == other.cfg and one.settings == other.settings, (name, one.settings)
