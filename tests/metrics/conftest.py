"""Sets of tones that the tests of a session share."""
import functools
from pathlib import Path

import pytest

from magnet_plugin.metrics.instruments import InstrumentClassifier

from ..helpers.tones import ToneSet, write_tones


@pytest.fixture(scope="session")
def tone_set(tmp_path_factory: pytest.TempPathFactory) -> ToneSet:
    """Returns the folder of a set of so many clips, drawn with a seed. Sets are shared: tests must not change them."""
    @functools.cache
    def make(count: int, seed: int) -> Path:
        return write_tones(tmp_path_factory.mktemp("tones"), count, seed)
    return make


@pytest.fixture(scope="session")
def classifier(tone_set: ToneSet) -> InstrumentClassifier:
    return InstrumentClassifier.train(tone_set(45, 0))
