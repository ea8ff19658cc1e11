"""The HTML page of `magnet demo`.

The page uses only files in its own folder: no scripts, no web fonts, no external links.
"""
from __future__ import annotations

import typing as tp
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import jinja2

from ..metrics.spectrogram import HEIGHT, WIDTH

TEMPLATES = jinja2.Environment(loader=jinja2.FileSystemLoader(Path(__file__).parent), autoescape=True,
                               undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True)


@dataclass(frozen=True)
class Clip:
    """A clip on the page.

    Attributes:
        text: the description that it was generated from.
        seed: random seed.
        audio, picture: names of the WAV and PNG files in the page's folder.
        duration: length in seconds.
        elapsed: time that generating it took, in seconds.
    """
    text: str
    seed: int
    audio: str
    picture: str
    duration: float
    elapsed: float

    @property
    def metadata(self) -> str:
        """Name of the JSON file."""
        return str(Path(self.audio).with_suffix(".json"))


@dataclass(frozen=True)
class Table:
    """A table: a caption, rows whose first cell is a header, and optional column names."""
    caption: str
    rows: Sequence[Sequence[tp.Any]]
    columns: Sequence[str] = ()


@dataclass(frozen=True)
class Section:
    """A heading, paragraphs of plain text, tables, and optionally a command that is shown between them."""
    title: str
    paragraphs: Sequence[str]
    tables: Sequence[Table]
    command: str = ""


def write_page(path: Path, title: str, intro: Sequence[str], clips: Sequence[Clip], sections: Sequence[Section]) -> Path:
    """Write the page.

    Args:
        path: the HTML file; the files of the clips are in its folder.
        title: heading and window title.
        intro: paragraphs under the heading, as plain text.
        clips: shown in this order.
        sections: shown below the clips.
    Returns:
        `path`.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    html = TEMPLATES.get_template("page.html").render(title=title, intro=intro, clips=clips, sections=sections,
                                                      width=WIDTH, height=HEIGHT)
    path.write_text(html, encoding="utf-8")
    return path
