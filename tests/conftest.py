"""Shared by the whole suite: a bare machine, composed configs, a release folder and a Dora folder."""
import copy
import functools
import os
import shutil
import tempfile
import typing as tp
from pathlib import Path

import pytest

from .helpers.bare_machine import bare

#: Suites that use the machine as it is: a real SLURM, a browser, and a GPU with its driver and compilers.
REAL = ("gpu", "slurm", "browser")


def pytest_configure(config: pytest.Config) -> None:
    """Hide what a fresh machine lacks before anything heavy is imported; see `helpers.bare_machine`."""
    if config.getoption("markexpr") in REAL or hasattr(config, "workerinput"):      # workers of pytest-xdist inherit it
        return
    folder = Path(tempfile.mkdtemp(prefix="magnet-tests-"))
    config.add_cleanup(functools.partial(shutil.rmtree, folder, ignore_errors=True))
    environ = bare(os.environ, folder)
    os.environ.clear()
    os.environ.update(environ)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Skip what this machine or this run cannot do; quick tests run first."""
    for item in items:
        if item.get_closest_marker("slurm") and config.getoption("markexpr") != "slurm":
            item.add_marker(pytest.mark.skip(reason="run it with: make test-slurm"))
    if any(item.get_closest_marker("gpu") for item in items):
        import torch
        if not torch.cuda.is_available():
            for item in items:
                if item.get_closest_marker("gpu"):
                    item.add_marker(pytest.mark.skip(reason="no CUDA device on this machine"))
    items.sort(key=lambda item: item.get_closest_marker("integ") is not None)


def compose(*overrides: str) -> tp.Any:
    """Return the config of `dora run OVERRIDES`, each time a new copy."""
    import magnet_plugin
    magnet_plugin.register()
    return copy.deepcopy(_compose(overrides))


@functools.cache
def _compose(overrides: tuple[str, ...]) -> tp.Any:
    from hydra import compose as hydra_compose
    from hydra import initialize_config_dir

    from magnet_plugin import environment
    with initialize_config_dir(str(environment.config_dir()), version_base="1.3"):
        return hydra_compose("config", list(overrides))


@pytest.fixture(scope="session")
def release_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A release folder in AudioCraft's own format: an untrained debug codec and a MAGNeT of two layers on it."""
    import magnet_plugin
    magnet_plugin.register()
    import torch
    from audiocraft.models import builders

    from magnet_plugin.models import checkpoints

    from .helpers.weights import scale_weights
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("release")
    codec_cfg = compose("solver=compression/tiny_16khz", "device=cpu", "rvq.bins=64", "seanet.n_filters=4",
                        "seanet.dimension=16")
    codec = builders.get_compression_model(codec_cfg)
    codec.quantizer(torch.randn(8, 16, 128), 50)          # fills the codebooks
    checkpoints.release(codec.state_dict(), codec_cfg, folder / checkpoints.CODEC_FILE)
    cfg = compose("solver=magnet/debug", "device=cpu", "transformer_lm.card=64")
    lm = scale_weights(builders.get_lm_model(cfg))
    checkpoints.release(lm.state_dict(), cfg, folder / checkpoints.LM_FILE)
    return folder


@pytest.fixture
def dora(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tp.Any:
    """A Dora folder that has nothing; see `helpers.toy_grids`."""
    from .helpers.toy_grids import Dora
    return Dora(tmp_path, monkeypatch)


@pytest.fixture
def mixed(dora: tp.Any) -> tp.Any:
    """A grid with jobs of every kind; see `helpers.toy_grids.mixed`."""
    from .helpers.toy_grids import mixed
    return mixed(dora)
