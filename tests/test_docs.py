"""README and docs: links and paths exist, and figures agree with the records."""
import json
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]
BUNDLED = ROOT / "magnet_plugin" / "models" / "bundled"


def anchors(page: Path) -> set[str]:
    """Anchors that GitHub gives to the headings of a page."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_relative_links_have_a_target(page: Path) -> None:
    text = re.sub(r"```.*?```", "", page.read_text(), flags=re.S)
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"\w+:", link):
            continue
        name, _, anchor = link.partition("#")
        target = page.parent / name if name else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


@pytest.mark.parametrize("page", [page for page in PAGES if page.name != "CHANGELOG.md"], ids=lambda page: page.name)
def test_source_paths_exist(page: Path) -> None:
    for path in re.findall(r"`((?:magnet_plugin|tests|config|grids|docs|requirements)/[\w./]*)`", page.read_text()):
        assert (ROOT / path).exists(), path


def test_readme_states_the_speed_that_was_measured() -> None:
    """Each row's three figures are AudioCraft's and the plugin's in a table of bench.md for whole clips, batch 1."""
    table = re.findall(r"^\| (\w+ \(\d+ M\)) \| ([\d, ]+) \| ([\d.]+) \| ([\d.]+) \| ([\d.]+) \|$",
                       (ROOT / "README.md").read_text(), re.M)
    blocks = (ROOT / "docs" / "results" / "bench.md").read_text().split("\n### ")
    assert len(table) >= 4
    for size, steps, upstream, plugin, ratio in table:
        found = [text for text in blocks if text.startswith(f"{size}, batch 1, 480 frames: whole clips, steps [{steps}]")]
        assert any(re.search(rf"^\| AudioCraft MAGNeT \| {re.escape(upstream)} \| 1\.00 ", block, re.M)
                   and re.search(rf"^\| [^|=]+ \| {re.escape(plugin)} \| {re.escape(ratio)} \(", block, re.M)
                   for block in found), size


def test_readme_states_the_bundled_models_figures() -> None:
    card = json.loads((BUNDLED / "magnet-16khz" / "card.json").read_text())
    readme, heldout = " ".join((ROOT / "README.md").read_text().split()), card["heldout"]
    for figure in (f"({card['files']['state_dict.bin'] / 1e6:.1f} MB)",
                   f"in {heldout['instrument_accuracy_generated']:.0%} of {heldout['clips']} held-out clips",
                   f"real clips: {heldout['instrument_accuracy_real']:.0%}",
                   f"shuffled captions: {heldout['instrument_accuracy_shuffled']:.0%}"):
        assert figure in readme, figure


def test_readme_names_make_targets_that_exist() -> None:
    targets = set(re.findall(r"^(\w[\w-]*):", (ROOT / "Makefile").read_text(), re.M))
    named = set(re.findall(r"\bmake ([\w-]+)`", (ROOT / "README.md").read_text()))
    assert named and named <= targets, named - targets
