"""register() and unregister()."""
import collections
import importlib
import pickle
import sys
from pathlib import Path

import pytest
import torch
from omegaconf import DictConfig, OmegaConf

import magnet_plugin


def places() -> dict[str, object]:
    import audiocraft
    from audiocraft import models, solvers
    from audiocraft.models import builders, lm_magnet, loaders, magnet
    from audiocraft.modules import transformer
    from audiocraft.solvers import base
    from audiocraft.solvers import builders as solver_builders
    from audiocraft.solvers.compression import CompressionSolver
    from audiocraft.utils import checkpoint, export
    return {
        "MAGNeT": models.MAGNeT, "magnet.MAGNeT": magnet.MAGNeT, "lm": lm_magnet.MagnetLMModel,
        "models.lm": models.MagnetLMModel, "get_lm_model": builders.get_lm_model,
        "provider": builders.get_conditioner_provider, "load": loaders.load_lm_model_magnet,
        "get_solver": solvers.get_solver, "builders.get_solver": solver_builders.get_solver,
        "codec": CompressionSolver.model_from_checkpoint, "pretrained codec": models.CompressionModel.get_pretrained,
        "state dict": loaders._get_state_dict, "export": export.export_lm, "export codec": export.export_encodec,
        "resolve": checkpoint.resolve_checkpoint_path,
        "load_checkpoint": checkpoint.load_checkpoint, "save_checkpoint": checkpoint.save_checkpoint,
        "train": getattr(audiocraft, "train", None),
        "train module": sys.modules.get("audiocraft.train"),
        "model_hash": base.model_hash, "backend": transformer._efficient_attention_backend,
    }


def test_register_is_idempotent_and_can_be_undone() -> None:
    magnet_plugin.unregister()
    before = places()
    magnet_plugin.register()
    during = places()
    magnet_plugin.register()
    assert places() == during
    assert {name for name in before if before[name] is not during[name]} == set(before) - {"backend"}
    wrappers = ("resolve", "pretrained codec", "get_solver", "builders.get_solver",     # carry the wrapped one's module
                "state dict", "export", "export codec")
    assert all(name == "backend" or "magnet_plugin" in getattr(value, "__module__", "magnet_plugin")
               for name, value in during.items() if name not in wrappers)
    magnet_plugin.unregister()
    assert places() == before
    magnet_plugin.register()


def test_torch_load_of_other_code_is_unchanged_while_audiocraft_loads_its_checkpoints(tmp_path: Path) -> None:
    magnet_plugin.register()
    from audiocraft.models import loaders
    from audiocraft.utils import checkpoint, export
    torch.save(collections.defaultdict(None), tmp_path / "own")
    ema = collections.defaultdict(dict, model={})               # torch's safe loading cannot fill a real defaultdict
    cfg = OmegaConf.create({"lm_model": "transformer_lm_magnet"})
    torch.save({"best_state": {"model": {}}, "fsdp_best_state": {}, "xp.cfg": cfg, "ema": ema}, tmp_path / "checkpoint.th")

    with torch.serialization.safe_globals([collections.defaultdict, DictConfig, pytest.ExitCode]):
        before = set(map(id, torch.serialization.get_safe_globals()))
        for load in (loaders.load_lm_model_ckpt, loaders.load_compression_model_ckpt, checkpoint.load_checkpoint):
            assert load(tmp_path / "checkpoint.th")["xp.cfg"] == cfg
        export.export_lm(tmp_path / "checkpoint.th", tmp_path / "exported")
        export.export_encodec(tmp_path / "checkpoint.th", tmp_path / "exported")
        with pytest.raises(ValueError, match="not a checkpoint"):
            checkpoint.load_checkpoint(Path(__file__))
        assert set(map(id, torch.serialization.get_safe_globals())) == before
        assert type(torch.load(tmp_path / "own")) is collections.defaultdict
    for name in ("own", "checkpoint.th"):
        with pytest.raises(pickle.UnpicklingError, match="Unsupported global"):
            torch.load(tmp_path / name)


def test_audiocraft_train_is_the_plugins() -> None:
    magnet_plugin.register()
    from audiocraft import train
    ours = importlib.import_module("magnet_plugin.train")
    assert train.main is ours.main and train.get_solver_from_sig is ours.get_solver_from_sig
    import audiocraft.train as imported
    assert imported.get_solver_from_xp is ours.get_solver_from_xp


def test_importing_the_class_registers_the_plugin() -> None:
    magnet_plugin.unregister()
    from audiocraft import models
    before = models.MAGNeT
    assert magnet_plugin.MAGNeT is models.MAGNeT is not before


def test_an_unknown_name_is_no_attribute() -> None:
    with pytest.raises(AttributeError, match="MagNet"):
        magnet_plugin.MagNet  # noqa: B018
