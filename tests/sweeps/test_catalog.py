"""Grids are found by name, and every grid of `magnet` exists at the tiny scale."""
import importlib
from pathlib import Path

import pytest
from dora import Explorer

from magnet_plugin import environment
from magnet_plugin.sweeps import catalog

FILES = sorted(path.stem for path in (Path(__file__).parents[2] / "grids" / "magnet").glob("[!_]*.py"))


def test_every_file_is_a_grid_at_both_scales() -> None:
    assert catalog.grid_names() == sorted(f"{scale}.{name}" for scale in ("magnet", "magnet.tiny") for name in FILES)
    for name in catalog.grid_names():
        assert isinstance(catalog.load_explorer(name), Explorer)


def test_a_tiny_grid_is_a_module() -> None:
    package = environment.grids_package()
    tiny, paper = (importlib.import_module(f"{package}.{scale}.ablate_span") for scale in ("magnet.tiny", "magnet"))
    assert tiny.explorer is catalog.load_explorer("magnet.tiny.ablate_span")
    assert tiny.explorer is not paper.explorer
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module(f"{package}.magnet.tiny.ablate_spam")


def test_an_unknown_name_is_rejected_with_the_known_ones() -> None:
    catalog.check_name("magnet.tiny.ablate_span")
    with pytest.raises(ValueError, match=r"no grid 'magnet.ablate_spam'; available grids: .*magnet\.ablate_span, "):
        catalog.check_name("magnet.ablate_spam")
    with pytest.raises(ValueError, match="magnet.tiny is not a grid"):
        catalog.load_explorer("magnet.tiny")
