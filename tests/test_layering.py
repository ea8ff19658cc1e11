"""Packages import in one direction; light modules stay light; files and functions stay small."""
import ast
import subprocess
import sys
from pathlib import Path

PACKAGE = Path(__file__).parents[1] / "magnet_plugin"
#: A package imports from packages of lower rank and from itself.
RANKS = {"environment": 0, "modules": 1, "data": 1, "metrics": 2, "distributed": 2, "decoding": 2, "engine": 3, "models": 4,
         "sweeps": 4, "solvers": 5, "registry": 6, "train": 7, "bench": 8, "app": 8, "cli": 9, "__main__": 10}
#: The paper's algorithm: tensors in, tensors out. Neither AudioCraft nor packages that may import it.
PURE = {"modules", "decoding", "engine"}
HEAVY = {"audiocraft", "omegaconf", "hydra", "flashy", "dora"}
FILES = sorted(path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py")


def imports_of(path: Path) -> set[str]:
    """Return the absolute names that a file imports, inside functions too."""
    names = set()
    package = path.relative_to(PACKAGE.parent).parts[:-1]
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = package[:len(package) - node.level + 1] if node.level else ()
            stem = ".".join([*base, *([node.module] if node.module else [])])
            names |= {f"{stem}.{alias.name}" for alias in node.names}
    return names


def package_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def test_imports_run_in_one_direction() -> None:
    wrong = []
    for path in FILES:
        own = package_of(path)
        for name in sorted(imports_of(path)):
            top, _, rest = name.partition(".")
            used = rest.split(".")[0]
            upwards = top == "magnet_plugin" and used in RANKS and used != own and RANKS[used] >= RANKS[own]
            impure = used in set(RANKS) - PURE if top == "magnet_plugin" else top in HEAVY
            if upwards or (own in PURE and impure):
                wrong.append(f"{path.relative_to(PACKAGE)} imports {name}")
    assert not wrong


def test_imports_have_no_cycle() -> None:
    modules = {".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts): path for path in FILES}
    graph = {name: {used for found in imports_of(path) for used in (found, found.rpartition(".")[0]) if used in modules}
             for name, path in modules.items()}
    done: set[str] = set()

    def visit(name: str, above: tuple[str, ...]) -> None:
        assert name not in above, " -> ".join([*above, name])
        if name not in done:
            for used in graph[name] - {name}:
                visit(used, (*above, name))
            done.add(name)

    for name in graph:
        visit(name, ())


def test_the_top_level_is_small() -> None:
    names = [path for path in PACKAGE.iterdir() if path.name != "__pycache__"]
    assert sum(path.is_file() for path in names) <= 6
    assert sum(path.is_dir() for path in names) <= 12


def loaded_after(code: str) -> set[str]:
    script = f"import sys\n{code}\nprint(*sorted(sys.modules))"
    out = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    return set(out.split())


def test_importing_the_package_is_light() -> None:
    heavy = {"torch", "audiocraft", "omegaconf", "numpy"}
    assert not heavy & loaded_after("import magnet_plugin, magnet_plugin.environment, magnet_plugin.cli.main")


def test_files_and_functions_are_small_and_documented() -> None:
    wrong = []
    for path in FILES:
        name, text = path.relative_to(PACKAGE), path.read_text()
        tree = ast.parse(text)
        if (lines := len(text.splitlines())) > 250:
            wrong.append(f"{name} has {lines} lines")
        if not ast.get_docstring(tree):
            wrong.append(f"{name} has no docstring")
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef) and (lines := (node.end_lineno or 0) - node.lineno + 1) > 50:
                wrong.append(f"{name}: {node.name} has {lines} lines")
    assert not wrong


def test_every_package_has_a_rank() -> None:
    assert {package_of(path) for path in FILES} == set(RANKS)
