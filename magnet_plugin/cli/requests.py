"""What `magnet generate` is asked for: texts on the command line, in a file or on standard input."""
from __future__ import annotations

import argparse
import csv
import dataclasses
import sys
import typing as tp
from pathlib import Path

from ..app import clip_settings
from ..decoding.option_types import check_names
from ..models.wishes import add_wishes

COLUMNS = ("text", "negative", "seed", "bpm", "key", *clip_settings.TYPES)
STDIN = "-"
MAX_CLIPS = 1_000_000


@dataclasses.dataclass(frozen=True)
class Request:
    """A clip to generate, in one or more variations.

    Attributes:
        text: its description, or None.
        negative: description of what it should not be; None means that of the command.
        seed: seed of its first variation; None numbers it with the others.
        bpm, key: added to the text, see `models.wishes`; None means those of the command.
        params: arguments of `set_generation_params` that differ from those of the command.
    """
    text: str | None
    negative: str | None = None
    seed: int | None = None
    bpm: float | None = None
    key: str | None = None
    params: dict[str, tp.Any] = dataclasses.field(default_factory=dict)


def add_texts(one: argparse.ArgumentParser) -> None:
    """Add the arguments that name texts."""
    one.add_argument("text", nargs="*", metavar="TEXT", help="description of the music; each TEXT gives one clip. A "
                     "single - reads one text per line from standard input, and generates each as soon as it is read")
    one.add_argument("--texts", type=Path, metavar="FILE", help="file with one text per line; or a CSV file with a header, "
                     "whose columns are text and, where wanted, negative, bpm, key, seed, duration and further "
                     "settings, such as temperature and decoding_steps; empty cells have the values of the command line")
    one.add_argument("--unconditional", type=int, metavar="N", help="generate N clips without a text")


def requests_of(args: argparse.Namespace) -> tp.Iterable[Request]:
    """Return what is asked for. It is a list, unless the texts come from standard input.

    Raises:
        ValueError: nothing is asked for, or in two ways; or the file is invalid.
    """
    ways = {"texts": bool(args.text), "--texts": args.texts is not None, "--unconditional": args.unconditional is not None}
    given = [name for name, used in ways.items() if used]
    if len(given) > 1:
        raise ValueError(f"give {' or '.join(given)}, not both")
    if args.unconditional is not None and not 1 <= args.unconditional <= MAX_CLIPS:
        raise ValueError(f"--unconditional {args.unconditional} must be at least 1 and at most {MAX_CLIPS}")
    if args.texts is not None:
        return read_file(args.texts)
    if args.text == [STDIN]:
        return (Request(text) for text in lines_of(sys.stdin))
    if args.text:
        return [Request(text) for text in args.text]
    if args.unconditional is None and not args.continue_from:
        raise ValueError('nothing to generate: give texts, as in magnet generate "a fast reel played on the violin", '
                         "or --texts FILE, or --unconditional N, or --continue-from AUDIO")
    return [Request(None)] * (args.unconditional or 1)


def lines_of(file: tp.Iterable[str]) -> tp.Iterator[str]:
    """Return the lines that are not empty."""
    return (line.strip() for line in file if line.strip())


def read_file(path: Path) -> list[Request]:
    """Read a file of texts.

    Raises:
        ValueError: there is no such file, it holds no texts, or a value is invalid; the message names the line.
    """
    if not path.is_file():
        raise ValueError(f"--texts {path}: no such file; give a file with one text per line, or a CSV file")
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            found = _rows(path, file) if path.suffix.lower() == ".csv" else [Request(text) for text in lines_of(file)]
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"--texts {path}: this is not a text file in UTF-8") from error
    if not found:
        raise ValueError(f"--texts {path} holds no texts")
    return found


def _rows(path: Path, file: tp.TextIO) -> list[Request]:
    rows = csv.DictReader(file, restkey="")
    names = [(name or "").strip() for name in rows.fieldnames or ()]
    if "text" not in names:
        raise ValueError(f"--texts {path}: the first line must name the columns, one of them text, but is "
                         f"{','.join(names)!r}")
    rows.fieldnames = names
    try:
        check_names(names, COLUMNS)
    except ValueError as error:
        raise ValueError(f"--texts {path}: {error}") from None
    found = []
    for row in rows:
        try:
            found.append(_request(row))
        except ValueError as error:
            raise ValueError(f"--texts {path}, line {rows.line_num}: {error}") from None
    return found


def _request(row: dict[str, tp.Any]) -> Request:
    if "" in row:
        raise ValueError("there are more cells than columns; put texts and numbers with commas in quotation marks")
    cells = {name: text.strip() for name, text in row.items() if text and text.strip()}
    text, negative, seed, tempo, key = (cells.pop(name, None) for name in ("text", "negative", "seed", "bpm", "key"))
    if text is None and (negative or tempo or key):
        raise ValueError("negative, bpm and key need a text")
    if seed is not None and not seed.removeprefix("-").isdecimal():
        raise ValueError(f"seed={seed!r} must be a whole number")
    try:
        bpm = None if tempo is None else float(tempo)
    except ValueError:
        raise ValueError(f"bpm={tempo!r} must be a number from 20 to 400") from None
    add_wishes(text, bpm, key)
    params = {name: clip_settings.parse(name, value) for name, value in cells.items()}
    clip_settings.check(params)
    return Request(text, negative, None if seed is None else int(seed), bpm, key, params)
