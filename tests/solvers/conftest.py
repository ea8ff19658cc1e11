"""Tiny real solvers, built once and reset for each test."""
import copy
import typing as tp

import pytest


def _build(folder: tp.Any, *overrides: str, base: str) -> tp.Any:
    # Imported here, because this registers the plugin and must not happen before `pytest_configure` of tests/conftest.py.
    from ..helpers.rank_group import make_solver
    from ..helpers.weights import scale_weights
    solver = make_solver(folder, *overrides, base=base)
    scale_weights(solver.model).eval()
    return solver


def _reset_after(solver: tp.Any) -> tp.Iterator[tp.Any]:
    cfg, weights = copy.deepcopy(solver.cfg), copy.deepcopy(solver.model.state_dict())
    solver._current_stage = "train"
    yield solver
    solver.cfg, solver.scaler, solver._current_stage = cfg, None, None
    solver.model.load_state_dict(weights)
    solver.model.eval()
    solver.optimizer.zero_grad()
    solver.optimizer.state.clear()


@pytest.fixture(scope="session")
def _magnet_solver(tmp_path_factory: pytest.TempPathFactory) -> tp.Any:
    return _build(tmp_path_factory.mktemp("magnet"), base="magnet/debug")


@pytest.fixture(scope="session")
def _hybrid_solver(tmp_path_factory: pytest.TempPathFactory) -> tp.Any:
    from ..helpers.rank_group import HYBRID
    return _build(tmp_path_factory.mktemp("hybrid"), *HYBRID, base="magnet/hybrid")


@pytest.fixture
def magnet_solver(_magnet_solver: tp.Any) -> tp.Iterator[tp.Any]:
    """A MagnetSolver in the stage `train`."""
    yield from _reset_after(_magnet_solver)


@pytest.fixture
def hybrid_solver(_hybrid_solver: tp.Any) -> tp.Iterator[tp.Any]:
    """A HybridMagnetSolver in the stage `train`."""
    yield from _reset_after(_hybrid_solver)
