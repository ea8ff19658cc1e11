"""Find grids by the name that `dora grid` and `magnet grid-report` take."""
from __future__ import annotations

import importlib
import typing as tp
from pathlib import Path

from .. import environment

if tp.TYPE_CHECKING:
    from dora.explore import Explorer


def grid_names() -> list[str]:
    """List the names of all grids, from their files; no grid is imported."""
    package = importlib.import_module(environment.grids_package())
    root = Path(tp.cast(str, package.__file__)).parent
    names = {".".join(path.relative_to(root).with_suffix("").parts): path for path in root.rglob("*.py")
             if not any(part.startswith("_") for part in path.relative_to(root).parts)}
    # grids/magnet/tiny provides a second module for every grid that takes a scale.
    tiny = [f"magnet.tiny.{path.stem}" for name, path in names.items()
            if name.startswith("magnet.") and "\ndef grid(" in path.read_text(encoding="utf-8")]
    return sorted([*names, *tiny])


def check_name(name: str) -> None:
    """Check that a grid exists.

    Raises:
        ValueError: It does not; the message lists the grids that do.
    """
    names = grid_names()
    if name not in names:
        raise ValueError(f"there is no grid {name!r}; available grids: {', '.join(names)}")


def load_explorer(name: str) -> Explorer:
    """Import a grid and return its explorer.

    Raises:
        ValueError: The module defines no `explorer`.
    """
    from dora.explore import Explorer
    explorer = getattr(importlib.import_module(f"{environment.grids_package()}.{name}"), "explorer", None)
    if not isinstance(explorer, Explorer):
        raise ValueError(f"{name} is not a grid: its module defines no `explorer` (a dora.Explorer)")
    return explorer
