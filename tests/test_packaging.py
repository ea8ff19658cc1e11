"""setup.py: requirements that are complete, satisfied, and bounded by versions that work."""
import ast
import importlib.metadata
import importlib.util
import re
import runpy
import sys
import typing as tp
from pathlib import Path

import pytest
import setuptools
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from magnet_plugin import environment
from tools import audit

ROOT = Path(__file__).parents[1]
#: Installed with --no-deps, because their own requirements cannot be installed.
WITH_TORCH = {"triton"}      # Comes with CUDA builds of torch; `engine.jit` does without it.
WITH_GRADIO = {"fastapi", "starlette", "uvicorn"}       # What Gradio's own server is made of.
WITHOUT_DEPENDENCIES = {"audiocraft", "tinysoundfont", "basic-pitch"}
#: Imports of AudioCraft, at the top of a module, that nothing here uses.
UNUSED = {"xformers.profiler"}
#: package, version, whether it is allowed, why.
KNOWN_VERSIONS = [
    ("torch", "2.6.0", False, "fully_shard has no ignored_params"),
    ("torch", "2.7.0", True, "trains and generates with the lowest allowed versions, Python 3.12"),
    ("torch", "2.10.0", True, "the version that the project is developed with"),
    ("torch", "2.14.1", True, "trains and generates with the newest versions, Python 3.11"),
    ("torchaudio", "2.6.0", False, "releases of torchaudio belong to releases of torch"),
    ("xformers", "0.0.29.post3", False, "built for torch 2.6"),
    ("xformers", "0.0.30", True, "built for torch 2.7"),
    ("av", "11.0.0", False, "AudioCraft's pin: no wheels on PyPI"),
    ("spacy", "3.8.12", False, "imports click without requiring it"),
    ("imageio-ffmpeg", "0.4.9", False, "imports pkg_resources, which Python 3.12 environments lack"),
    ("pyyaml", "6.0", False, "its source build fails, and there are no wheels for Python 3.12"),
    ("scipy", "1.11.1", False, "no wheels for Python 3.12"),
]


@pytest.fixture(scope="module")
def arguments() -> dict[str, tp.Any]:
    """The arguments that setup.py gives to `setuptools.setup`."""
    found: dict[str, tp.Any] = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(setuptools, "setup", lambda **kwargs: found.update(kwargs))
        runpy.run_path(str(ROOT / "setup.py"))
    return found


@pytest.fixture(scope="module")
def required(arguments: dict[str, tp.Any]) -> dict[str, Requirement]:
    requirements = map(Requirement, arguments["install_requires"])
    return {canonicalize_name(requirement.name): requirement for requirement in requirements}


def imports(path: Path, everywhere: bool) -> set[str]:
    """Top-level names of the absolute imports of a file, or of those at module level only."""
    tree = ast.parse(path.read_text())
    nodes = ast.walk(tree) if everywhere else iter(tree.body)
    names: set[str] = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level and node.module:
            names.add(node.module)
    return {name.split(".")[0] for name in names - UNUSED} - set(sys.stdlib_module_names) - {"magnet_plugin"}


def test_installed_versions_satisfy_the_requirements(required: dict[str, Requirement]) -> None:
    for name, requirement in required.items():
        assert requirement.specifier.contains(importlib.metadata.version(name), prereleases=True), requirement


@pytest.mark.parametrize("name, version, allowed, reason", KNOWN_VERSIONS)
def test_versions_that_fail_are_excluded(required: dict[str, Requirement], name: str, version: str, allowed: bool,
                                         reason: str) -> None:
    assert (version in required[name].specifier) == allowed, f"{name} {version}: {reason}"


def test_every_import_is_a_requirement(arguments: dict[str, tp.Any], required: dict[str, Requirement]) -> None:
    """Of the plugin, its configs' grids, and AudioCraft, whose own requirements are not installed; extras count."""
    extras = {canonicalize_name(Requirement(text).name) for texts in arguments["extras_require"].values() for text in texts}
    audiocraft = Path(tp.cast(str, tp.cast(tp.Any, importlib.util.find_spec("audiocraft")).origin)).parent
    names: dict[str, Path] = {}
    for folder, everywhere in ((ROOT / "magnet_plugin", True), (ROOT / "grids", True), (audiocraft, False)):
        for path in folder.rglob("*.py"):
            names |= dict.fromkeys(imports(path, everywhere), path)
    distributions = importlib.metadata.packages_distributions()
    for name, path in names.items():
        homes = {canonicalize_name(home) for home in distributions.get(name, [name])}
        provided = set(required) | extras | WITHOUT_DEPENDENCIES | WITH_TORCH | WITH_GRADIO
        assert homes & provided, f"{path} imports {name}, which setup.py does not require"
    assert not WITHOUT_DEPENDENCIES & set(required)


def test_extras_contain_what_is_not_required_anyway(arguments: dict[str, tp.Any], required: dict[str, Requirement]) -> None:
    for extra, requirements in arguments["extras_require"].items():
        assert not {canonicalize_name(Requirement(text).name) for text in requirements} & set(required), extra


def test_constraints_are_allowed_versions(arguments: dict[str, tp.Any], required: dict[str, Requirement]) -> None:
    allowed = {**required, **{one.name: one for one in map(Requirement, arguments["extras_require"]["dev"])}}
    lines = (ROOT / "requirements" / "constraints.txt").read_text().splitlines()
    pins = [Requirement(line) for line in lines if line and not line.startswith("#")]
    assert {"torch", "torchaudio", "xformers", "hypothesis"} == {pin.name for pin in pins}
    for pin in pins:
        (version,) = (specifier.version for specifier in pin.specifier)
        assert version in allowed[pin.name].specifier, pin


def test_locked_versions_satisfy_the_requirements(arguments: dict[str, tp.Any], required: dict[str, Requirement]) -> None:
    """Otherwise run `make lock`. Every file has a hash, and the versions of the constraints are locked."""
    extras = [Requirement(text) for extra in ("dev", "app", "docs") for text in arguments["extras_require"][extra]]
    lock = (ROOT / "requirements" / "lock.txt").read_text()
    pins = dict(pin.split("==") for pin in audit.pins(lock))
    for requirement in (*required.values(), *extras):
        assert requirement.specifier.contains(pins[canonicalize_name(requirement.name)], prereleases=True), requirement
    for line in (ROOT / "requirements" / "constraints.txt").read_text().splitlines():
        assert line.startswith("#") or f"\n{line} " in f"\n{lock}", line
    assert not re.search(r"^[a-z].*(?<!\\)$", lock, re.M), "a pin without a hash"


def test_readme_makefile_and_error_message_install_audiocraft_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = environment.INSTALL_AUDIOCRAFT.removeprefix("pip install ")
    assert environment.INSTALL_AUDIOCRAFT in (ROOT / "README.md").read_text().splitlines()
    assert re.search(rf"uv pip install .*{re.escape(arguments)}\n", (ROOT / "Makefile").read_text())
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ModuleNotFoundError, match=re.escape(environment.INSTALL_AUDIOCRAFT)):
        environment.require_audiocraft()
