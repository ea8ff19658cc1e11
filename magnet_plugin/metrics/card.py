"""A model's card: figures in `card.json`, the same figures in words in `README.md`."""
from __future__ import annotations

import json
import typing as tp
from pathlib import Path

#: What a figure is called in the README; others go by their own name.
LABELS: dict[str, str] = {
    "audio_seconds": "seconds of audio",
    "seconds": "seconds of work",
    "generated_audio_seconds": "seconds of audio generated",
    "generation_seconds": "seconds that generating took",
    "si_snr_db": "SI-SNR in dB, mean (higher is better)",
    "si_snr_db_median": "SI-SNR in dB, median",
    "mel_distance_db": "mel distance in dB (64 bands, lower is better)",
    "instrument_accuracy_real": "instrument recognised: the real clips",
    "instrument_accuracy_codec": "instrument recognised: the real clips through the codec",
    "instrument_accuracy_generated": "instrument recognised: generated from the captions",
    "instrument_accuracy_shuffled": "instrument recognised: generated, labels shuffled (chance)",
    "frechet_train": "Fréchet distance to the held-out clips: real training clips",
    "frechet_codec": "Fréchet distance to the held-out clips: themselves through the codec",
    "frechet_generated": "Fréchet distance to the held-out clips: generated",
    "frechet_noise": "Fréchet distance to the held-out clips: white noise",
    "kbps": "bit rate in kb/s",
    "uniform": "loss of a uniform guess, nats",
}
SECTIONS: tuple[tuple[str, str], ...] = (
    ("Measured on the held-out split", "heldout"), ("Loss on the validation split, in nats a token", "validation"),
    ("Model", "model"), ("Training", "training"), ("Data", "data"), ("Made with", "made_with"),
    ("Files, in bytes", "files"))


def write_card(folder: Path, card: dict[str, tp.Any]) -> None:
    """Write `card.json` and `README.md` into `folder`.

    Args:
        card: plain values: `name`, `about` and `licence` (paragraphs), and the parts that `SECTIONS` names.
    Raises:
        ValueError: a value that JSON cannot hold, NaN among them.
    """
    text = json.dumps(card, indent=1, ensure_ascii=False, allow_nan=False)
    (folder / "card.json").write_text(text + "\n", encoding="utf-8")
    (folder / "README.md").write_text(render(json.loads(text)), encoding="utf-8")


def render(card: dict[str, tp.Any]) -> str:
    """The card as Markdown, every figure of it in a table."""
    blocks = [f"# {card['name']}", *card["about"]]
    for title, key in SECTIONS:
        if key in card:
            rows = "\n".join(f"| {label} | {value} |" for label, value in flatten(card[key]))
            blocks.append(f"## {title}\n\n|  |  |\n| --- | --- |\n{rows}")
    blocks += ["## Licences", *card["licence"]]
    return "\n\n".join(blocks) + "\n"


def flatten(part: tp.Any, name: str = "") -> list[tuple[str, str]]:
    """Names and values of all leaves; a list of plain values is one leaf."""
    if isinstance(part, dict):
        return [row for key, value in part.items()
                for row in flatten(value, (name + ", " if name else "") + label(key))]
    if isinstance(part, list) and any(isinstance(item, dict) for item in part):
        return [row for number, item in enumerate(part, 1) for row in flatten(item, f"{name} {number}")]
    return [(name, plain(part))]


def label(key: str) -> str:
    """What a figure is called; the name of a file stays as it is."""
    return LABELS.get(key, key if "." in key else key.replace("_", " "))


def plain(value: tp.Any) -> str:
    """A value as a cell: four significant digits for what is not whole."""
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: "unknown"}[value]
    if isinstance(value, list):
        return "`" + " ".join(map(str, value)).replace("|", "\\|") + "`" if value else "none"
    if isinstance(value, float) and abs(value) >= 1000:
        return f"{value:.0f}"
    return f"{value:.4g}" if isinstance(value, float) else str(value).replace("|", "\\|")
