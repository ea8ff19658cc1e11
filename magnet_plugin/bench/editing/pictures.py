"""The pictures and sounds of docs/editing.md: clips before and after edits, masks, and the windows of long clips."""
from __future__ import annotations

import io
import typing as tp
from pathlib import Path

import torch

from ...data.clips import load_audio, read_clips
from ...decoding.windows import ORDERS, plan_windows
from ...metrics.pictures import BACKGROUND, FOREGROUND, pyplot
from ...metrics.spectrogram import draw_into
from ...models import keep
from ...models.keep_mask import Clip, Keep
from ...models.keep_pictures import FREE_COLOUR, KEPT_COLOUR
from ...models.splice import regions_of
from ..settings import MAGNET

WIDTH, PANEL, DPI = 7.2, 1.3, 100           # inches, and pixels per inch
COLOURS = 32                                # of the palette of a PNG; they keep the files small
SEED = 1
MARK = "#ffffff"
FORMAT = "ogg"
Spans = tp.Sequence[tuple[float, float]]
Panel = tuple[str, torch.Tensor, Spans]     # title, audio [C, samples], and spans to mark
MASKS: tuple[Keep, ...] = (
    keep.outside([(2.0, 3.0)]), keep.prefix(1.0) | keep.suffix(1.0), keep.every(10, width=2),
    keep.every(10, width=2).dropout(0.5), keep.codebooks(2), keep.onsets(), keep.beats(), keep.strength(0.4),
    keep.prefix(1.0) | keep.every(8) & keep.codebooks(2))


def draw_all(split: Path, folder: Path, number: int = 0) -> list[Path]:
    """Draw all pictures, and write what can be heard in them, from the bundled model and a held-out clip.

    Args:
        split: manifest folder of the held-out clips.
        folder: for the files.
        number: of the clip.
    Returns:
        The paths of the files.
    """
    import soundfile

    from ... import MAGNeT
    model = MAGNeT.get_pretrained(MAGNET, device="cpu")
    clip = read_clips(split, number + 1)[number]
    wav = load_audio(clip.path, model.sample_rate)
    made, sounds = {}, {"recording": wav}
    for name, panels in edits(model, wav, clip.field("description")):
        made[name], sounds[name] = draw_panels(panels, model.sample_rate), panels[-1][1]
    about = Clip(model.lm.n_q, round(wav.shape[-1] / model.sample_rate * model.frame_rate), float(model.frame_rate), 1,
                 wav[None], model.sample_rate)
    made |= {"masks": draw_masks(MASKS, about), "presets": draw_masks(tuple(keep.PRESETS.values()), about),
             "windows": draw_windows(model.window_frames, float(model.frame_rate), 17.0)}
    sounds["loop"] = sounds["loop"].repeat(1, 2)
    for name, sound in sounds.items():
        soundfile.write(folder / f"{name}.{FORMAT}", sound.cpu().numpy().T, model.sample_rate)
    return [*(save(figure, folder / f"{name}.png") for name, figure in made.items()),
            *(folder / f"{name}.{FORMAT}" for name in sounds)]


def edits(model: tp.Any, wav: torch.Tensor, text: str) -> tp.Iterator[tuple[str, list[Panel]]]:
    """Edit a clip [C, samples] by each method, what is filled in by the preset for it; yield a picture's name and panels."""
    rate, texts = model.sample_rate, [text]

    def panel(title: str, made: tp.Any) -> Panel:
        return title, made.audio[0], made.spans[0]

    before: Panel = ("recording", wav, [])
    model.set_preset("edit")
    inpainted = model.inpaint(wav, rate, [(2.0, 3.0)], texts, seed=SEED)
    yield "inpaint", [("recording", wav, inpainted.spans[0]), panel("inpaint: 2 s to 3 s are generated anew", inpainted)]
    looped = model.loop(wav, rate, 2.0, texts, seed=SEED)
    model.set_generation_params()
    short = wav[..., :3 * rate]
    yield "extend", [("recording of 3 s", short, []),
                     panel("extend: 1 s before and 1 s after are added",
                           model.extend(short, rate, before=1.0, after=1.0, descriptions=texts, seed=SEED))]
    yield "vary", [before, *(panel(f"vary: strength {strength:g}", model.vary(wav, rate, strength, texts, seed=SEED))
                             for strength in (0.2, 0.5, 0.9))]
    middle = wav.shape[-1] // 2
    turned = [sound.roll(middle, dims=-1) for sound in (wav, looped.audio[0])]
    centre = middle / rate
    yield "loop", [("the end of the recording, followed by its start", turned[0], [(centre - 1, centre + 1)]),
                   ("loop: the end and the start are generated anew", turned[1], [(centre - 1, centre + 1)])]


def draw_panels(panels: tp.Sequence[Panel], sample_rate: int) -> tp.Any:
    """Draw spectrograms below one another, with marks around what was generated."""
    figure, all_axes = _figure(len(panels), PANEL)
    longest = max(wav.shape[-1] for _, wav, _ in panels) / sample_rate
    for axes, (title, wav, spans) in zip(all_axes, panels, strict=True):
        draw_into(axes, wav.cpu().numpy(), sample_rate)
        axes.set_xlim(0, longest)
        axes.set_title(title, color=FOREGROUND, fontsize=9, loc="left")
        axes.set_ylabel("kHz", color=FOREGROUND, fontsize=9)
        for start, stop in spans:
            axes.axvspan(start, stop, ymin=0.965, color=MARK, linewidth=0)
            if stop - start > 0.2:
                axes.vlines([start, stop], *axes.get_ylim(), color=MARK, linewidth=0.8)
    return figure


def draw_masks(masks: tp.Sequence[Keep], clip: Clip) -> tp.Any:
    """Draw masks of the same clip below one another, with codebook 1 at the bottom."""
    figure, all_axes = _figure(len(masks), 0.75)
    colours = pyplot().matplotlib.colors.ListedColormap([FREE_COLOUR, KEPT_COLOUR])
    for axes, mask in zip(all_axes, masks, strict=True):
        kept = mask(clip)[0]
        edges = torch.arange(clip.frames + 1) / clip.frame_rate, torch.arange(clip.codebooks + 1) + 0.5
        axes.pcolormesh(*edges, kept.float(), vmin=0, vmax=1, cmap=colours)
        axes.set_yticks([1, clip.codebooks])
        axes.set_title(f"{mask}: {float(kept.float().mean()):.0%} kept", color=FOREGROUND, fontsize=9, loc="left")
    _legend(figure, {"kept": KEPT_COLOUR, "generated again": FREE_COLOUR})
    return figure


def draw_windows(size: int, frame_rate: float, seconds: float) -> tp.Any:
    """Draw the windows of a clip in the order of decoding, with what each of them generates."""
    length = round(seconds * frame_rate)
    figure, all_axes = _figure(len(ORDERS), 1.6)
    for axes, order in zip(all_axes, ORDERS, strict=True):
        free = torch.ones(length, dtype=torch.bool)
        windows = plan_windows(free.tolist(), size, round(0.4 * size), order)
        for number, window in enumerate(windows):
            part = free[window.start:window.stop]
            axes.broken_barh([(window.start / frame_rate, size / frame_rate)], (number + 0.6, 0.8), color=KEPT_COLOUR)
            runs = regions_of(part)
            new = [((window.start + run.start) / frame_rate, (run.stop - run.start) / frame_rate) for run in runs]
            axes.broken_barh(new, (number + 0.6, 0.8), color=FREE_COLOUR)
            free[window.start:window.stop] = False
        axes.set_ylim(len(windows) + 0.6, 0.4)
        axes.set_xlim(0, seconds)
        axes.set_yticks(range(1, len(windows) + 1))
        axes.set_ylabel("window", color=FOREGROUND, fontsize=9)
        axes.set_title(f"window_order={order}", color=FOREGROUND, fontsize=9, loc="left")
    _legend(figure, {"generated by the window": FREE_COLOUR, "known by then": KEPT_COLOUR})
    return figure


def save(figure: tp.Any, path: Path) -> Path:
    """Write a figure as a PNG with a small palette, and close it."""
    from PIL import Image
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=DPI)
    pyplot().close(figure)
    Image.open(buffer).convert("RGB").quantize(COLOURS, dither=Image.Dither.NONE).save(path, optimize=True)
    return path


def _figure(count: int, height: float) -> tuple[tp.Any, tp.Any]:
    """Create a dark figure of `count` panels of this height in inches, which share the axis of time."""
    size = (WIDTH, height * count + 0.5)
    figure, axes = pyplot("the pictures need matplotlib").subplots(
        count, 1, figsize=size, facecolor=BACKGROUND, layout="constrained", squeeze=False, sharex=True)
    for one in axes[:, 0]:
        one.set_facecolor(BACKGROUND)
        one.tick_params(colors=FOREGROUND, labelsize=8, length=2)
        one.spines[:].set_visible(False)
    axes[-1, 0].set_xlabel("time (s)", color=FOREGROUND, fontsize=9)
    return figure, axes[:, 0]


def _legend(figure: tp.Any, colours: dict[str, str]) -> None:
    boxes = [pyplot().Rectangle((0, 0), 1, 1, color=colour) for colour in colours.values()]
    figure.legend(boxes, list(colours), loc="upper right", ncols=len(boxes), fontsize=8, frameon=False,
                  labelcolor=FOREGROUND)
