"""The documentation as its readers use it: the site builds, its links lead somewhere, and its code runs."""
import os
import re
import subprocess
import sys
import typing as tp
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlparse

import numpy as np
import pytest
import soundfile

from magnet_plugin import MAGNeT

from .runs import ROOT

pytestmark = pytest.mark.integ
#: Blocks that are parts of files, and are only compiled.
FILES = ("from .._explorers",)
#: Published models, and what takes their place where there is no network.
STANDINS = {"facebook/magnet-small-10secs": "//bundled/magnet-16khz", "facebook/musicgen-small": "//bundled/musicgen-16khz"}


class Links(HTMLParser):
    """Links and anchors of a page."""

    def __init__(self, page: Path) -> None:
        super().__init__()
        self.links: list[str] = []
        self.anchors: set[str] = set()
        self.feed(page.read_text())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, tp.Optional[str]]]) -> None:
        values = dict(attrs)
        self.anchors |= {str(values[name]) for name in ("id", "name") if values.get(name)}
        self.links += [str(values[name]) for name in ("href", "src") if values.get(name)]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("site")
    done = subprocess.run([sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(out)], cwd=ROOT, text=True,
                          capture_output=True, env={**os.environ, "PYTHONPATH": str(ROOT), "NO_MKDOCS_2_WARNING": "1"})
    assert done.returncode == 0 and "WARNING" not in done.stderr, done.stderr[-3000:]
    return out


def test_every_link_of_the_site_has_a_target_and_nothing_is_loaded_from_elsewhere(site: Path) -> None:
    pages = {path: Links(path) for path in site.rglob("*.html") if path.name != "404.html"}
    assert len(pages) > 20
    for path, page in pages.items():
        for link in page.links:
            url = urlparse(link)
            if url.scheme or link.startswith("//"):
                continue
            target = (path.parent / unquote(url.path)).resolve() if url.path else path
            assert target.exists(), f"{path.name}: {link}"
            if url.fragment and target in pages:
                assert unquote(url.fragment) in pages[target].anchors, f"{path.name}: {link}"
        loaded = re.findall(r"<(?:script|img|link)[^>]+(?:src|href)=\"(https?:[^\"]+)\"", path.read_text())
        assert not [url for url in loaded if "canonical" not in url], path.name


def blocks_of(page: Path) -> list[str]:
    return re.findall(r"```python\n(.*?)```", page.read_text(), re.S)


@pytest.mark.parametrize("page", [page for page in sorted((ROOT / "docs").glob("*.md")) if blocks_of(page)],
                         ids=lambda page: page.name)
def test_the_python_of_a_page_runs(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One block after the other, as a reader would paste them."""
    get_pretrained = MAGNeT.get_pretrained

    def with_standins(name: str = "facebook/magnet-small-10secs", device: tp.Any = None, rescorer: tp.Any = None) -> MAGNeT:
        return get_pretrained(STANDINS.get(name, name), "cpu", STANDINS.get(rescorer, rescorer))

    monkeypatch.setattr(MAGNeT, "get_pretrained", staticmethod(with_standins))
    monkeypatch.chdir(tmp_path)
    for name in ("song.wav", "loop.wav"):
        soundfile.write(name, 0.1 * np.random.default_rng(0).standard_normal(8 * 16000), 16000)
    names: dict[str, tp.Any] = {"MAGNeT": MAGNeT}
    names["model"] = MAGNeT.get_pretrained("//bundled/magnet-16khz")
    for number, block in enumerate(blocks_of(page)):
        code = compile(block, f"{page.name}, block {number + 1}", "exec")
        if not block.startswith(FILES):
            exec(code, names)


def test_the_notebook_runs(tmp_path: Path) -> None:
    import nbformat
    from nbclient import NotebookClient
    notebook = nbformat.read(ROOT / "docs" / "notebooks" / "magnet.ipynb", as_version=4)
    assert all(not cell.get("outputs") for cell in notebook.cells), "the notebook is stored without outputs"
    NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(tmp_path)}}).execute()
    outputs = [output.get("data", {}) for cell in notebook.cells for output in cell.get("outputs", [])]
    assert sum("image/png" in data for data in outputs) >= 4
