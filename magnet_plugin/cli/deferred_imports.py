"""Importing AudioCraft without the heavy packages that `magnet generate` does not use.

AudioCraft imports them at its top level, which takes most of the time until the first sound.
"""
import importlib
import importlib.util
import sys
import types
from typing import Any

from .. import environment

#: Imported by AudioCraft at its top level, and needed only by some models, solvers or metrics.
DEFERRED = ("xformers", "spacy", "transformers", "librosa", "num2words", "av", "audiocraft.metrics",
            "torch.distributed.fsdp", "torch.distributed._shard.sharded_tensor.api")


class _Deferred:
    """Represents `module.name` in an AudioCraft module and imports the module on first use."""

    def __init__(self, module: str, name: str) -> None:
        self.__dict__["_source"] = (module, name)

    def _load(self) -> Any:
        module, name = self.__dict__["_source"]
        loaded = importlib.import_module(module)
        try:
            return getattr(loaded, name)
        except AttributeError:                                  # A submodule that the package does not import.
            return importlib.import_module(f"{module}.{name}")

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):                               # Lookups by typing and inspect.
            raise AttributeError(name)
        return getattr(self._load(), name)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._load()(*args, **kwargs)

    def __mro_entries__(self, bases: tuple[Any, ...]) -> tuple[type, ...]:
        # AudioCraft derives its FSDP wrapper from a deferred class. The commands that defer imports never use it.
        return (object,)

    def __instancecheck__(self, instance: Any) -> bool:
        return isinstance(instance, self._load())


class _DeferredModule(types.ModuleType):
    """Represents a module while AudioCraft is imported; afterwards its attributes are those of the real module."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        if sys.modules.get(self.__name__) is self:
            return _Deferred(self.__name__, name)
        return _Deferred(self.__name__, name)._load()


def defer_imports() -> None:
    """Import AudioCraft without the heavy packages that it imports at its top level, see `DEFERRED`.

    AudioCraft's modules get stand-ins that import the real package on first use. The stand-ins leave `sys.modules` before
    this function returns, so that every other import is the usual one. Only the `magnet` command calls this; a script that
    imports the plugin or AudioCraft sees no difference. Does nothing if AudioCraft is already imported.
    """
    if "audiocraft" in sys.modules:
        return
    environment.require_audiocraft()
    stand_ins = {}
    for name in DEFERRED:
        if name in sys.modules:
            continue
        spec = None if "." in name else importlib.util.find_spec(name)
        if spec is None and "." not in name:                    # not installed: the usual error
            continue
        stand_ins[name] = _DeferredModule(name)
        stand_ins[name].__spec__ = spec
    sys.modules.update(stand_ins)
    try:
        importlib.import_module("audiocraft")
    finally:
        for name, module in stand_ins.items():
            if sys.modules.get(name) is module:
                del sys.modules[name]
