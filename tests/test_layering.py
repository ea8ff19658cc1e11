"""Imports run one way, as the table says; light modules stay light; files stay small."""
import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "magnet_plugin"
# Each room may import from rooms of lower rank, and from its own.
RANKS = {
    "rescoring_options": -1, "environment": 0, "records": 0, "pictures": 0, "schedules": 0, "spans": 0, "options": 0,
    "masking": 1, "attention": 1, "losses": 1, "decoding": 2,
    "conditioners": 2, "hybrid": 2, "layers": 2, "data": 2, "metrics": 2, "lm": 3, "training": 3, "tokens": 3,
    "signals": 3, "watch": 3, "sharding": 3, "conditions": 3, "kvcache": 4, "randomness": 4, "lm_hybrid": 5, "rescorers": 4,
    "builders": 6, "ranks": 6, "sharded": 7,
    "checkpoints": 6, "cascade": 5, "loading": 7, "preemption": 7, "partners": 8, "generating": 9, "solver": 10,
    "solver_hybrid": 11, "api": 11, "registry": 12, "slurm": 12, "train": 13, "doctor": 13, "page": 13, "zoo": 14,
    "bench": 14, "demo": 14, "sweeps": 14, "cli": 15, "__main__": 16,
}
PURE = {"schedules", "spans", "options", "rescoring_options", "masking", "attention", "losses", "decoding", "hybrid",
        "records"}
OMEGACONF = {"builders", "checkpoints", "loading", "generating", "sharded", "solver", "solver_hybrid", "api", "train",
             "environment", "sweeps"}
BESIDE = {"data": {"options", "environment"}, "metrics": {"options", "environment"}, "conditioners": {"options"}}


def imports_of(path: Path) -> list[str]:
    """Absolute names that a file imports, anywhere in it."""
    names = []
    package = list(path.relative_to(PACKAGE.parent).parts[:-1])
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package[:len(package) - node.level + 1] if node.level else []
            stem = ".".join([*base, *([node.module] if node.module else [])])
            names += [f"{stem}.{alias.name}" for alias in node.names] if stem in ("magnet_plugin", "") else [stem]
    return names


def room(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


FILES = sorted(path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py")


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_run_one_way(path: Path) -> None:
    own = room(path)
    assert own in RANKS, f"{own} is a new room: give it a rank"
    for name in imports_of(path):
        parts = name.split(".")
        if parts[0] == "magnet_plugin" and len(parts) > 1 and parts[1] in RANKS and parts[1] != own:
            assert RANKS[parts[1]] < RANKS[own], f"{own} imports {name}"
            assert own not in BESIDE or parts[1] in BESIDE[own], f"{own} imports {name}"
        if own in PURE:
            assert parts[0] not in ("audiocraft", "omegaconf", "hydra", "flashy", "dora"), f"{own} imports {name}"
        if parts[0] == "omegaconf":
            assert own in OMEGACONF, f"{own} imports omegaconf: a DictConfig is seen by {sorted(OMEGACONF)} alone"


def loaded_after(code: str) -> set[str]:
    script = f"import sys\n{code}\nprint(*sorted(sys.modules))"
    out = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    return set(out.split())


def test_importing_the_package_is_light() -> None:
    heavy = {"torch", "audiocraft", "omegaconf", "numpy"}
    assert not heavy & loaded_after("import magnet_plugin, magnet_plugin.environment")
    assert not heavy & loaded_after("import magnet_plugin.cli")
    assert "audiocraft" not in loaded_after("import magnet_plugin.decoding, magnet_plugin.attention")


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_files_and_functions_are_small(path: Path) -> None:
    text = path.read_text()
    assert text.count("\n") <= 300
    assert ast.get_docstring(ast.parse(text)) or path.name == "__main__.py", "a module says what it is"
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef):
            assert node.end_lineno - node.lineno <= 60, node.name
