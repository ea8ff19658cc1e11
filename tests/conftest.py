"""Fixtures shared by the suite: an untrained codec and MAGNeT in files, and a folder for Dora's runs."""
import os
import typing as tp
from pathlib import Path

import pytest


def pytest_configure(config: pytest.Config) -> None:
    os.environ.pop("USER", None)                # containers have none, and nothing may need it


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """A GPU test without a GPU says so; quick tests run first."""
    try:
        import torch
        gpu = torch.cuda.is_available()
    except ImportError:
        gpu = False
    for item in items:
        if item.get_closest_marker("gpu") and not gpu:
            item.add_marker(pytest.mark.skip(reason="no CUDA device on this machine"))
    slow = ("integ", "slurm")
    items.sort(key=lambda item: max((1 + slow.index(mark.name) for mark in item.iter_markers() if mark.name in slow),
                                    default=0))


def compose(*overrides: str) -> tp.Any:
    """The config of `dora run OVERRIDES`."""
    import magnet_plugin
    from magnet_plugin import environment
    magnet_plugin.register()
    from hydra import compose as hydra_compose
    from hydra import initialize_config_dir
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
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("release")
    codec_cfg = compose("solver=compression/tiny_16khz", "device=cpu", "rvq.bins=64", "seanet.n_filters=4",
                        "seanet.dimension=16")
    codec = builders.get_compression_model(codec_cfg)
    codec.quantizer(torch.randn(8, 16, 128), 50)          # fills the codebooks
    checkpoints.release(codec.state_dict(), codec_cfg, folder / checkpoints.CODEC_FILE)
    cfg = compose("solver=magnet/debug", "device=cpu", "transformer_lm.card=64")
    lm = builders.get_lm_model(cfg)
    with torch.no_grad():
        for name, parameter in lm.named_parameters():
            if name.startswith(("transformer", "emb")) and parameter.dim() > 1:
                parameter.mul_(6)
    checkpoints.release(lm.state_dict(), cfg, folder / checkpoints.LM_FILE)
    return folder


@pytest.fixture
def dora(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tp.Any:
    """A Dora folder that has nothing; see `toygrid`."""
    from .helpers.toy_grids import Dora
    return Dora(tmp_path, monkeypatch)


@pytest.fixture
def mixed(dora: tp.Any) -> tp.Any:
    """A grid with jobs of every kind; see `toygrid.mixed`."""
    from .helpers.toy_grids import mixed
    return mixed(dora)
