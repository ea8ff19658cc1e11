"""The bundled models: each codec is stored once, and every loader follows the references to it."""
import pytest
import torch

import magnet_plugin

magnet_plugin.register()
from audiocraft.models import CompressionModel  # noqa: E402
from audiocraft.models import loaders as upstream  # noqa: E402
from audiocraft.solvers.compression import CompressionSolver  # noqa: E402

from magnet_plugin.models import checkpoints  # noqa: E402
from magnet_plugin.models.autoregressive import AutoregressiveModel  # noqa: E402
from magnet_plugin.models.checkpoints import BUNDLED, CODEC_FILE  # noqa: E402
from magnet_plugin.models.loaders import load_codec  # noqa: E402

CODEC = "//bundled/codec-16khz"
NAMES = sorted(path.name for path in BUNDLED.iterdir() if path.is_dir())
REFERRING = [name for name in NAMES if f"//bundled/{name}" != CODEC]


@pytest.fixture(scope="module")
def weights() -> dict[str, torch.Tensor]:
    return load_codec(CODEC).state_dict()


def assert_same(codec: CompressionModel, weights: dict[str, torch.Tensor]) -> None:
    state = codec.state_dict()
    assert state.keys() == weights.keys() and all(torch.equal(state[key], weights[key]) for key in weights)


def test_the_codec_is_stored_once() -> None:
    holding = [name for name in NAMES if "best_state" in checkpoints.load(BUNDLED / name / CODEC_FILE)]
    assert holding == ["codec-16khz"]
    assert sum((BUNDLED / name / CODEC_FILE).stat().st_size for name in REFERRING) < 10_000


@pytest.mark.parametrize("name", REFERRING)
def test_every_loader_follows_the_reference(name: str, weights: dict[str, torch.Tensor]) -> None:
    folder = BUNDLED / name
    assert_same(load_codec(f"//bundled/{name}"), weights)
    assert_same(upstream.load_compression_model(folder), weights)
    assert_same(CompressionModel.get_pretrained(str(folder)), weights)
    assert_same(CompressionSolver.model_from_checkpoint(str(folder / CODEC_FILE)), weights)


def test_models_are_loaded_with_their_codec(weights: dict[str, torch.Tensor]) -> None:
    for name in ("magnet-16khz", "hybrid-16khz"):
        assert_same(magnet_plugin.MAGNeT.get_pretrained(f"//bundled/{name}", device="cpu").compression_model, weights)
    assert_same(AutoregressiveModel.load("//bundled/musicgen-16khz").compression_model, weights)


def test_export_writes_the_codec_in_full(tmp_path, weights: dict[str, torch.Tensor]) -> None:
    """An exported folder does not depend on the bundled models."""
    for source in (CODEC, str(BUNDLED / "magnet-16khz")):
        checkpoints.export_codec(source, tmp_path / CODEC_FILE)
        exported = checkpoints.load(tmp_path / CODEC_FILE)
        assert exported["exported"] and exported["best_state"].keys() == weights.keys()
        assert_same(upstream.load_compression_model(tmp_path), weights)


def test_references_to_the_hub_are_exported_as_references(tmp_path) -> None:
    checkpoints.export_codec("//pretrained/facebook/encodec_32khz", tmp_path / "first" / CODEC_FILE)
    checkpoints.export_codec(str(tmp_path / "first"), tmp_path / "second" / CODEC_FILE)
    assert checkpoints.load(tmp_path / "second" / CODEC_FILE)["pretrained"] == "facebook/encodec_32khz"


def test_training_continues_from_a_referring_file(weights: dict[str, torch.Tensor]) -> None:
    state = checkpoints.load_as_checkpoint(BUNDLED / "magnet-16khz" / CODEC_FILE)
    assert state["best_state"]["model"].keys() == weights.keys()
