"""MAGNeT for AudioCraft (arXiv 2401.04577): train, tune and run masked audio models.

>>> from magnet_plugin import MAGNeT                      # registers the plugin with AudioCraft
>>> model = MAGNeT.get_pretrained("//bundled/magnet-16khz")
>>> wav = model.generate(["a fast reel played on the violin"])    # [1, 1, samples]

Importing the package imports neither torch nor AudioCraft; using its names does.
"""
import importlib
import typing as tp

__version__ = "0.1.0"
__all__ = ["GenerationOptions", "MAGNeT", "MagnetLMModel", "register", "unregister"]

_LAZY_NAMES = {"MAGNeT": "models.magnet", "MagnetLMModel": "models.lm_magnet", "GenerationOptions": "decoding.options"}


def register() -> None:
    """Replace AudioCraft's MAGNeT with the plugin's. Idempotent."""
    from . import registry
    registry.register()


def unregister() -> None:
    """Restore what `register()` replaced.

    OmegaConf's resolvers and the environment variables AUDIOCRAFT_CONFIG, USER and PATH keep what `register()` set.
    """
    from . import registry
    registry.unregister()


def __getattr__(name: str) -> tp.Any:
    if name not in _LAZY_NAMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if name == "MAGNeT":
        register()
    return getattr(importlib.import_module(f".{_LAZY_NAMES[name]}", __name__), name)
