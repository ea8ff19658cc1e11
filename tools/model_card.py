"""Model cards of the bundled models: `card.json`, and the same content as Markdown in `README.md`."""
from __future__ import annotations

import json
import typing as tp
from pathlib import Path

#: What each kind of bundled model is, in paragraphs.
ABOUT: dict[str, list[str]] = {
    "codec": ["A small EnCodec for folk tunes played on sampled instruments. MAGNeT's default recipe and the demo use it, "
              "because it runs on any machine and needs no download.",
              "It was trained only on the folk set; the table below shows its reconstruction quality. It is not meant for "
              "speech or other music and does not replace the published EnCodec models."],
    "magnet": ["A tiny MAGNeT with the codec `//bundled/codec-16khz`. It plays a folk tune from a caption such as `a fast "
               "reel in D major played on the violin`. It demonstrates the whole path from data to audio and gives the "
               "tests a trained model.",
               "It only knows the vocabulary of the folk set; the table below shows how well it follows its captions. For "
               "making music, use the published models, which are far larger."],
    "musicgen": ["A small MusicGen (delay pattern, autoregressive) with the codec and the data of `//bundled/magnet-16khz`. "
                 "It serves as that model's rescorer and prompt model, and as a baseline.",
                 "It only knows the vocabulary of the folk set and is not meant for making music."],
    "hybrid": ["A tiny Hybrid-MAGNeT: one set of weights generates the first seconds autoregressively and the rest in "
               "parallel.",
               "It only knows the vocabulary of the folk set, was trained for few steps, and is not meant for making "
               "music."],
}
TUNES = ("The tunes behind the training audio are traditional or from the 19th century, and the chorales are by J. S. Bach; "
         "none is under copyright. No recording of a performance was used.")


def licence(data: tp.Any) -> list[str]:
    """Return the paragraphs on licences.

    Args:
        data: the card's section of this name, the arguments of the folk set.
    """
    from magnet_plugin.data.folk import soundfonts
    names = (data.get("soundfonts") if isinstance(data, dict) else None) or [soundfonts.DEFAULT]
    files = {name: soundfonts.SOUNDFONTS[name].file if name in soundfonts.SOUNDFONTS else name for name in names}
    fonts = ", ".join(f"{Path(file).stem} ({soundfonts.licence(name)})" for name, file in files.items())
    plural, included = ("s", "none of which is") if len(names) > 1 else ("", "which is not")
    return [TUNES, f"The audio was rendered with the SoundFont{plural} {fonts}, {included} included here. The weights are "
            "under the plugin's own licence."]


#: Names of values in the README; other values are shown under their key.
LABELS: dict[str, str] = {
    "audio_seconds": "audio (s)",
    "seconds": "total time (s)",
    "generated_audio_seconds": "generated audio (s)",
    "generation_seconds": "generation time (s)",
    "training_seconds": "training time (s)",
    "validation_seconds": "validation time (s)",
    "si_snr_db": "SI-SNR, mean (dB, higher is better)",
    "si_snr_db_median": "SI-SNR, median (dB)",
    "mel_distance_db": "mel distance, 64 bands (dB, lower is better)",
    "instrument_accuracy_real": "instrument accuracy: real clips",
    "instrument_accuracy_codec": "instrument accuracy: real clips after encoding and decoding",
    "instrument_accuracy_generated": "instrument accuracy: clips generated from the captions",
    "instrument_accuracy_shuffled": "instrument accuracy: generated clips against shuffled labels (chance)",
    "frechet_train": "Fréchet distance to the held-out clips: real training clips",
    "frechet_codec": "Fréchet distance to the held-out clips: the same clips after encoding and decoding",
    "frechet_generated": "Fréchet distance to the held-out clips: generated clips",
    "frechet_noise": "Fréchet distance to the held-out clips: white noise",
    "sample_rate": "sample rate (Hz)",
    "frame_rate": "frame rate (Hz)",
    "kbps": "bit rate (kb/s)",
    "dim": "model dimension",
    "span_len": "span length (frames)",
    "longest_clip_in_seconds": "maximum duration (s)",
    "duration": "clip length (s)",
    "uniform": "uniform distribution",
    "ce": "all codebooks",
    "ce_prompt": "prompt tokens",
    **{f"ce_q{codebook}": f"codebook {codebook}" for codebook in range(1, 9)},
}
SECTIONS: tuple[tuple[str, str], ...] = (
    ("Results on the held-out split", "heldout"), ("Validation loss (nats per token)", "validation"),
    ("Model", "model"), ("Training", "training"), ("Data", "data"), ("Environment", "made_with"),
    ("Files (bytes)", "files"))


def write_card(folder: Path, card: dict[str, tp.Any]) -> None:
    """Write `card.json` and `README.md` into `folder`.

    Args:
        folder: an existing folder.
        card: values that JSON can hold: `name`, the lists of paragraphs `about`, `notes` and `licence`, and the
            keys in `SECTIONS`.
    Raises:
        ValueError: JSON cannot hold a value, such as NaN.
    """
    text = json.dumps(card, indent=1, ensure_ascii=False, allow_nan=False)
    (folder / "card.json").write_text(text + "\n", encoding="utf-8")
    (folder / "README.md").write_text(render(json.loads(text)), encoding="utf-8")


def render(card: dict[str, tp.Any]) -> str:
    """Render a card as Markdown, with one table per section."""
    blocks = [f"# {card['name']}", *card["about"], *card.get("notes", [])]
    for title, key in SECTIONS:
        if key in card:
            rows = "\n".join(f"| {label} | {value} |" for label, value in flatten(card[key]))
            blocks.append(f"## {title}\n\n|  |  |\n| --- | --- |\n{rows}")
    blocks += ["## Licences", *card["licence"]]
    return "\n\n".join(blocks) + "\n"


def flatten(part: tp.Any, name: str = "") -> list[tuple[str, str]]:
    """List the labels and formatted values of all leaves; a list of plain values is one leaf."""
    if isinstance(part, dict):
        return [row for key, value in part.items()
                for row in flatten(value, (name + ", " if name else "") + label(key))]
    if isinstance(part, list) and any(isinstance(item, dict) for item in part):
        return [row for number, item in enumerate(part, 1) for row in flatten(item, f"{name.removesuffix('s')} {number}")]
    return [(name, format_value(part))]


def label(key: str) -> str:
    """Return the label of a key; file names stay as they are."""
    return LABELS.get(key, key if "." in key else key.replace("_", " "))


def format_value(value: tp.Any) -> str:
    """Format a value as a table cell; numbers that are not whole get four significant digits."""
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: "unknown"}[value]
    if isinstance(value, list):
        return "`" + " ".join(map(str, value)).replace("|", "\\|") + "`" if value else "none"
    if isinstance(value, float) and abs(value) >= 1000:
        return f"{value:.0f}"
    return f"{value:.4g}" if isinstance(value, float) else str(value).replace("|", "\\|")
