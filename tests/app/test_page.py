"""The HTML page of the demo."""
import html.parser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

from magnet_plugin.app.page import Clip, Section, Table, write_page

EVIL = '<script>alert("x")</script> & \'co\''


class Reader(html.parser.HTMLParser):
    """Collects tags, links and text as a browser sees them."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict]] = []
        self.text = ""
        self.feed(source)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.text += data

    def links(self) -> list[str]:
        return [attrs[name] for _, attrs in self.tags for name in ("src", "href") if attrs.get(name)]


def linked_file(page: Path, link: str) -> Path:
    """Return the file that a browser opens: `?` and `#` end a path."""
    return page.parent / unquote(urlsplit(link).path)


@pytest.fixture
def written(tmp_path):
    """A page with two clips whose text and file names contain special characters."""
    clips = [Clip(text, 7 + number, f"{number} #50%? & co.wav", f"{number} #50%? & co.png", 0.5, 0.25)
             for number, text in enumerate(["a slow air", EVIL])]
    sections = [Section(EVIL, [EVIL], [Table(EVIL, [(EVIL, EVIL), ("decoding_steps", [20, 10])], ("name", EVIL))], EVIL)]
    return write_page(tmp_path / "index.html", EVIL, [EVIL], clips, sections)


def test_everything_is_shown_and_escaped(written):
    reader = Reader(written.read_text())
    assert not any(tag == "script" for tag, _ in reader.tags)
    for text in ("a slow air", "seed 7", "seed 8", "0.5 s of audio, generated in 0.2 s", "decoding_steps", "[20, 10]"):
        assert text in reader.text, text
    # Window title, heading, introduction, clip; the section's title, paragraph, command, caption, column and two cells.
    assert reader.text.count(EVIL) == 11


def test_links_are_files_next_to_the_page(written):
    source = written.read_text()
    links = [linked_file(written, link) for link in Reader(source).links()]
    for number in range(2):
        for suffix, count in ((".wav", 2), (".png", 1), (".json", 1)):          # the WAV is played and linked
            assert links.count(written.parent / f"{number} #50%? & co{suffix}") == count
    assert len(links) == 8 and "url(" not in source and "@import" not in source


def test_page_is_accessible(written):
    tags = Reader(written.read_text()).tags
    assert [attrs["alt"] for tag, attrs in tags if tag == "img"] == [f'Spectrogram of "{t}"' for t in ("a slow air", EVIL)]
    assert [attrs["aria-label"] for tag, attrs in tags if tag == "audio"] == ["a slow air", EVIL]
    assert ("html", {"lang": "en"}) in tags and "prefers-color-scheme: dark" in written.read_text()
    assert any(attrs.get("name") == "viewport" for tag, attrs in tags if tag == "meta")
