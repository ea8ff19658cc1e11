"""Markdown tables."""
from __future__ import annotations

import typing as tp


def markdown(heads: tp.Sequence[str], rows: tp.Iterable[tp.Sequence[str]], left: int = 1) -> str:
    """Return a Markdown table; the first `left` columns are aligned to the left."""
    lines = [heads, ["---"] * left + ["---:"] * (len(heads) - left), *rows]
    return "".join("| " + " | ".join(line) + " |\n" for line in lines)
