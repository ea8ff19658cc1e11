"""The report of `magnet data scan`."""
from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path


@dataclass
class Report:
    """What `scan` wrote and found: per split its manifest folder, number of files and seconds; then lists of problems."""

    folders: dict[str, Path] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    unreadable: list[str] = field(default_factory=list)
    missing_captions: list[str] = field(default_factory=list)
    too_short: list[str] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def summary(self, most: int = 5) -> str:
        """Format the report, with at most `most` lines per list of problems."""
        lines = [f"{name:9} {self.counts[name]:6d} files {self.seconds[name] / 60:8.1f} min  datasource.{name}={folder}"
                 for name, folder in self.folders.items()]
        for title, names in (
                ("unreadable, skipped", self.unreadable),
                ("unsupported or listed twice, skipped", self.skipped),
                ("shorter than the minimum duration, skipped", self.too_short),
                ("without a caption (add a column `description` to the CSV, or a .json or .txt file of the same name)",
                 self.missing_captions),
                ("with warnings", self.warnings)):
            if names:
                lines.append(f"{len(names)} {title}:")
                lines += [f"  {name}" for name in names[:most]]
                lines += [f"  ... and {len(names) - most} more"] if len(names) > most else []
        return "\n".join(lines)
