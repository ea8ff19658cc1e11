"""Every grid of `grids.magnet` at the scale that two CPU cores can run: `dora grid magnet.tiny.NAME`.

A module of `grids.magnet` defines `grid(scale)`. For each of them this package creates a module of the same name whose
`explorer` is `grid(TINY)`; a new grid needs no second file.
"""
import importlib
import pkgutil
import sys
import types

from ... import magnet
from ..._base import TINY

for _found in pkgutil.iter_modules(magnet.__path__):
    _source = None if _found.ispkg else importlib.import_module(f"{magnet.__name__}.{_found.name}")
    if hasattr(_source, "grid"):
        _module = types.ModuleType(f"{__name__}.{_found.name}", _source.__doc__)
        _module.explorer = _source.grid(TINY)           # type: ignore[attr-defined]
        globals()[_found.name] = sys.modules[_module.__name__] = _module
