"""The settings in which jobs differ, and their names."""
from magnet_plugin.sweeps import records, settings

from ..helpers.toy_grids import CONFIG


def test_settings_have_short_names_that_distinguish_them() -> None:
    wanted = [{"a.depth": 1, "b.depth": 2, "optim.lr": 0.1, "label": "x"}, {"a.depth": 3, "b.depth": 4, "optim.lr": 0.1}]
    found = settings.varying_settings([records.Job(str(n), [f"{key}={value}" for key, value in job.items()])
                             for n, job in enumerate(wanted)])
    assert {one.name: one.values for one in found} == {"a depth": ("1", "3"), "b depth": ("2", "4"), "label": ("x", "–")}
    assert found[0].numbers == [1, 3] and found[2].numbers is None
    implied = settings.varying_settings([records.Job("a", ["masking.span_len=5"]), records.Job("b", [], cfg=CONFIG)])
    assert implied[0].values == ("5", "3"), "what a job does not name is in its config"
