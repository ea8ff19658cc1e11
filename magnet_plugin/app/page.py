"""What is left beside the sound: WAV files with their settings, spectrogram pictures, and a page to hear and see them.

The page needs nothing but the files next to it: no script, no web font, no link out.
"""
from __future__ import annotations

import html
import json
import re
import string
import typing as tp
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import numpy as np

from ..metrics.pictures import pyplot

TEMPLATE = Path(__file__).with_name("page.html")
PEAK = 0.99                     # of full scale; louder audio is turned down as a whole, not clipped
LOWEST, ROWS = 60.0, 288        # Hz at the bottom of a picture; its rows
WINDOW, FFT, HOP = 0.096, 2, 8  # seconds; padding to this multiple of the window; hops per window
FLOOR = 75.0                    # dB below the loudest point that are still drawn
DARK, PALE = "#0d0b14", "#cfcbdc"

Row = Sequence[tp.Any]


@dataclass(frozen=True)
class Clip:
    """One clip of the page. `audio` and `picture` are file names beside the page, times are in seconds."""
    text: str
    seed: int
    audio: str
    picture: str
    duration: float
    took: float


@dataclass(frozen=True)
class Table:
    """A table of the page; `head` may be empty. The first cell of each row is its name."""
    title: str
    rows: Sequence[Row]
    head: Row = ()
    note: str = ""


def slug(text: str, length: int = 60) -> str:
    """`text` as part of a file name: words of letters and digits joined by hyphens, `length` characters at most.

    >>> slug("A fast reel, in D major!")
    'a-fast-reel-in-d-major'
    """
    return "-".join(re.findall(r"[^\W_]+", text.lower()))[:length].strip("-") or "clip"


def reserve(folder: Path, text: str) -> Path:
    """A WAV path named after `text` that no other call ever gets, even for the same text or from another process.

    The file is made, empty. Names end in a number: `a-reel-001.wav`, `a-reel-002.wav`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    stem, number = slug(text), 1
    while True:
        path = folder / f"{stem}-{number:03d}.wav"
        try:
            path.touch(exist_ok=False)
            return path
        except FileExistsError:
            number += 1


def save_clip(path: Path, wav: np.ndarray, sample_rate: int, facts: Mapping[str, tp.Any]) -> float:
    """Write audio as 16-bit WAV, and `facts` as JSON beside it.

    Args:
        path: the WAV file; the JSON has the same name.
        wav: [channels, samples]; what is louder than full scale is turned down as a whole.
        sample_rate: in Hz.
        facts: plain values and numbers of NumPy, such as text, seed and settings; `gain` is added.
    Returns:
        The gain, 1 unless the audio was too loud.
    Raises:
        ValueError: the audio holds NaN or infinite samples.
    """
    import soundfile
    peak = float(np.abs(wav).max(initial=0.0))
    if not np.isfinite(peak):
        raise ValueError(f"{path.name}: samples are not finite; generate in float32, or lower the guidance")
    gain = min(1.0, PEAK / peak) if peak > 0 else 1.0
    text = json.dumps({**facts, "gain": round(gain, 4)}, indent=2, ensure_ascii=False, default=_plain)
    soundfile.write(path, (wav * gain).T, sample_rate, subtype="PCM_16")
    path.with_suffix(".json").write_text(text + "\n", encoding="utf-8")
    return gain


def _plain(value: tp.Any) -> tp.Any:
    """Numbers of NumPy, as codecs compute their frame rate with it, as Python's."""
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"{value!r} of type {type(value).__name__} cannot stand in a JSON file")


def spectrogram(wav: np.ndarray, sample_rate: int) -> tuple[np.ndarray, np.ndarray]:
    """Power in dB below the loudest point, on a logarithmic axis of frequency.

    Args:
        wav: [samples] or [channels, samples].
        sample_rate: in Hz.
    Returns:
        Picture [ROWS, frames] from -FLOOR to 0, lowest frequency first, and the rows' edges in Hz [ROWS + 1].
    """
    mono = np.atleast_2d(wav).mean(axis=0)
    size = int(WINDOW * sample_rate)
    mono = np.pad(mono, (size // 2, max(size // 2, size - len(mono))))
    frames = np.lib.stride_tricks.sliding_window_view(mono, size)[::size // HOP]
    power = np.abs(np.fft.rfft(frames * np.hanning(size), FFT * size)).T ** 2              # [bins, frames]
    edges = np.geomspace(LOWEST, sample_rate / 2, ROWS + 1)
    # Mean power between two edges by way of the running sum: smooth where a row is narrower than a bin, no bin lost
    # where it is wider.
    total = np.concatenate([np.zeros((1, power.shape[1])), power.cumsum(axis=0)])
    place = edges / (sample_rate / (FFT * size))
    below = np.minimum(place.astype(int), len(total) - 2)
    share = (place - below)[:, None]
    at_edges = total[below] * (1 - share) + total[below + 1] * share
    rows = np.diff(at_edges, axis=0) / np.diff(place)[:, None]
    rows /= max(rows.max(), 1e-12)
    return np.maximum(10 * np.log10(np.maximum(rows, 1e-12)), -FLOOR), edges


def draw_spectrogram(path: Path, wav: np.ndarray, sample_rate: int) -> None:
    """Write a picture of audio [samples] or [channels, samples] as PNG, 1080 x 420 pixels.

    Raises:
        ImportError: matplotlib is not installed.
    """
    plt = pyplot("the spectrogram needs matplotlib")
    picture, edges = spectrogram(wav, sample_rate)
    figure = plt.figure(figsize=(7.2, 2.8), dpi=150, facecolor=DARK, layout="tight")
    axes = figure.add_subplot(facecolor=DARK)
    seconds = np.atleast_2d(wav).shape[1] / sample_rate
    axes.imshow(picture, origin="lower", aspect="auto", cmap="magma", interpolation="bilinear", vmin=-FLOOR, vmax=0,
                extent=(0.0, seconds, 0.0, float(ROWS)))
    ticks = [kilo for kilo in (0.1, 0.2, 0.5, 1, 2, 4, 8, 16) if edges[0] <= 1000 * kilo <= edges[-1] * 1.001]
    rows = np.interp(np.log(np.multiply(ticks, 1000.0)), np.log(edges), np.arange(ROWS + 1))
    axes.set_yticks(rows, list(map(str, ticks)))
    axes.set_xlabel("time (s)", color=PALE, fontsize=11)
    axes.set_ylabel("frequency (kHz)", color=PALE, fontsize=11)
    axes.tick_params(colors=PALE, labelsize=10, length=3)
    axes.spines[:].set_visible(False)
    figure.savefig(path)
    plt.close(figure)


def write_page(path: Path, title: str, intro: Sequence[str], clips: Sequence[Clip], tables: Sequence[Table]) -> Path:
    """Write the page.

    Args:
        path: the HTML file; the clips' files lie beside it.
        title: heading and window title.
        intro: paragraphs under the heading, as plain text.
        clips: what to show, in this order.
        tables: settings, times and the like.
    Returns:
        `path`.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    page = string.Template(TEMPLATE.read_text(encoding="utf-8")).substitute(
        title=_text(title), intro="\n".join(f"<p>{_text(line)}</p>" for line in intro),
        clips="\n".join(map(_clip, clips)), tables="\n".join(map(_table, tables)))
    path.write_text(page, encoding="utf-8")
    return path


def _text(value: tp.Any) -> str:
    return html.escape(str(value), quote=True)


def _clip(clip: Clip) -> str:
    audio, picture, facts = map(quote, (clip.audio, clip.picture, str(Path(clip.audio).with_suffix(".json"))))
    return (f'<article>\n<img src="{picture}" width="1080" height="420" loading="lazy" '
            f'alt="Spectrogram of &quot;{_text(clip.text)}&quot;">\n<div>\n<h3>{_text(clip.text)}</h3>\n'
            f'<audio controls preload="metadata" src="{audio}" aria-label="{_text(clip.text)}"></audio>\n'
            f'<p>{clip.duration:.1f} s of audio in {clip.took:.1f} s · seed {clip.seed} · '
            f'<a href="{audio}" download>WAV</a> · <a href="{facts}">settings</a></p>\n</div>\n</article>')


def _table(table: Table) -> str:
    head = "".join(f'<th scope="col">{_text(cell)}</th>' for cell in table.head)
    head = f"<tr>{head}</tr>\n" if head else ""
    rows = "\n".join(map(_row, table.rows))
    note = f'\n<p class="note">{_text(table.note)}</p>' if table.note else ""
    return f"<div>\n<h2>{_text(table.title)}</h2>{note}\n<table>\n{head}{rows}\n</table>\n</div>"


def _row(row: Row) -> str:
    cells = "".join(f"<td>{_text(cell)}</td>" for cell in row[1:])
    return f'<tr><th scope="row">{_text(row[0])}</th>{cells}</tr>'
