"""The report of `magnet data scan`."""
from __future__ import annotations

import re
import shlex
from dataclasses import dataclass, field
from pathlib import Path


@dataclass
class Report:
    """What `scan` wrote and found.

    Attributes:
        out: output folder.
        folders: split -> its manifest folder.
        counts, seconds: split -> number and total duration of its files.
        name_captions: files whose captions were made from their names.
    """

    out: Path
    folders: dict[str, Path] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    name_captions: list[str] = field(default_factory=list)
    unreadable: list[str] = field(default_factory=list)
    missing_captions: list[str] = field(default_factory=list)
    too_short: list[str] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def summary(self, most: int = 5) -> str:
        """Format the report, with at most `most` lines per list of files, and the setting that uses the data."""
        lines = [f"{name:9} {self.counts[name]:6d} files {self.seconds[name] / 60:8.1f} min  datasource.{name}={folder}"
                 for name, folder in self.folders.items()]
        for title, names in (
                ("captions made from the names of folders and files (to leave them empty: --captions given)",
                 self.name_captions),
                ("unreadable, skipped", self.unreadable),
                ("unsupported or listed twice, skipped", self.skipped),
                ("shorter than the minimum duration, skipped", self.too_short),
                ("without a caption (add a column `description` to the CSV, or a .json or .txt file of the same name)",
                 self.missing_captions),
                ("with warnings", self.warnings)):
            if names:
                lines.append(f"{len(names)} {title}:")
                lines += [f"  {printable(name)}" for name in names[:most]]
                lines += [f"  ... and {len(names) - most} more"] if len(names) > most else []
        if self.folders:
            lines.append(f"To train on them: datasource.scan={quoted(self.out)}")
        return "\n".join(lines)


def printable(text: str) -> str:
    r"""Replace the characters of a file name or caption that a terminal cannot show, or takes for commands, by escapes.

    >>> print(printable("a\x1b[31m \udcff 🎻"))
    a\x1b[31m \udcff 🎻
    """
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def quoted(path: Path) -> str:
    """Quote a path for the shell and for Hydra, where it needs it.

    >>> print(quoted(Path("egs/mine")), quoted(Path("my audio")))
    egs/mine "'my audio'"
    """
    if re.fullmatch(r"[\w./~@%+-]+", str(path)):
        return str(path)
    value = "'" + str(path).replace("'", "\\'") + "'"
    return shlex.quote(value) if set('"$`\\!') & set(value) else f'"{value}"'
