"""MAGNeTs on the toy codec, for windows of one second: 50 frames of 16 samples."""
import typing as tp

from magnet_plugin import MAGNeT

from .small_models import HybridMagnetLMModel, MagnetLMModel, build_scaled
from .small_musicgens import build_musicgen
from .toy_codec import ToyCodec

FEW: dict[str, tp.Any] = {"decoding_steps": [3, 2, 1, 1]}
#: Ways of decoding, by name: the model and its settings.
WAYS: dict[str, tuple[type, dict[str, tp.Any]]] = {
    "plain": (MagnetLMModel, {"engine": "plain"}), "lean": (MagnetLMModel, {"engine": "lean"}),
    "rescored": (MagnetLMModel, {"rescorer": build_musicgen(card=ToyCodec.CARD), "rescorer_weight": 0.5}),
    "hybrid": (HybridMagnetLMModel, {"engine": "plain"}), "hybrid lean": (HybridMagnetLMModel, {"engine": "lean"})}


def toy_magnet(way: str = "lean", **params: tp.Any) -> MAGNeT:
    """An untrained model that decodes in one of `WAYS`."""
    kind, own = WAYS[way]
    lm = build_scaled(kind, length=50)
    model = MAGNeT(name="toy", compression_model=ToyCodec(), lm=lm, max_duration=1.0)
    model.set_generation_params(**FEW, **own, **params)
    return model
