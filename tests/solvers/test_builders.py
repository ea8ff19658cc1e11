"""Which solver a config builds."""
import typing as tp
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from magnet_plugin.solvers import builders


class Solver:
    def __init__(self, cfg: tp.Any) -> None:
        self.cfg, self.compression_model = cfg, "a codec"


def test_the_plugins_solver_precedes_audiocrafts_and_both_cache_tokens(tmp_path: Path,
                                                                       monkeypatch: pytest.MonkeyPatch) -> None:
    class Own(Solver):
        pass
    cached: list[tuple] = []
    monkeypatch.setitem(builders.SOLVERS, "magnet", Own)                        # type: ignore[arg-type]
    monkeypatch.setattr(builders, "cache_tokens", lambda *arguments: cached.append(arguments))
    own = builders.get_solver(OmegaConf.create({"solver": "magnet"}), Solver)
    assert type(own) is Own and cached == [], "without cache.tokens nothing is cached"
    other = builders.get_solver(OmegaConf.create({"solver": "musicgen", "cache": {"tokens": str(tmp_path)}}), Solver)
    assert type(other) is Solver and cached == [("a codec", str(tmp_path))]
    assert set(builders.SOLVERS) == {"magnet", "audio_magnet", "hybrid_magnet"}
