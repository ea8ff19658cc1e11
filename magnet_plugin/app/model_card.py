"""The README.md of an export: a model card that states what the files and the run hold, and nothing else."""
from __future__ import annotations

import re
import typing as tp
from pathlib import Path

from ..data.manifests import read_manifest
from ..models.inspection import PLACEHOLDER
from ..sweeps.records import Job, get_value
from .fine_tuning import shorten

CARD = "README.md"
NO_LICENCE = f"license: other\nlicense_name: {PLACEHOLDER}"
ASK = (f"Not stated yet. Whoever publishes this model states its licence here and in the first lines of this file, in place "
       f"of `{PLACEHOLDER}`: it depends on the training data and on the model that the training started from.")
KINDS = {"transformer_lm_magnet": "A MAGNeT", "transformer_lm_hybrid_magnet": "A hybrid MAGNeT",
         "transformer_lm": "An autoregressive language model (MusicGen)"}
MOST_EPOCHS = 12            # rows of the table of losses


def has_licence(card: str) -> bool:
    """Whether the card of an export states a licence."""
    return PLACEHOLDER not in card and re.search(r"^license: *\S", card, re.M) is not None


def with_licence(card: str, licence: str) -> str:
    """Return a card in which a licence takes the place of the placeholder."""
    return card.replace(NO_LICENCE, f"license: {licence}").replace(ASK, f"{licence}")


def write_card(folder: Path, facts: tp.Mapping[str, tp.Any], job: Job | None, cfg: tp.Any,
               licence: str | None = None) -> bool:
    """Write the card of a release folder. One that exists is kept, because people edit it; it only gets the licence.

    Args:
        folder: release folder.
        facts: of `models.inspection.inspect`.
        job: the run, if the source is one.
        cfg: config of the training, with the folders of its data.
        licence: the licence's identifier on the hub, such as `cc-by-4.0`; the card has a placeholder if it is None.
    Returns:
        Whether the card was written, not kept.
    """
    path = folder / CARD
    kept = path.exists()
    text = path.read_text(encoding="utf-8") if kept else card_of(folder.resolve().name, facts, job, cfg)
    path.write_text(with_licence(text, licence) if licence else text, encoding="utf-8")
    return not kept


def card_of(name: str, facts: tp.Mapping[str, tp.Any], job: Job | None, cfg: tp.Any) -> str:
    """Write the text of a card, with the placeholder for the licence."""
    model = facts["model"] or {}
    codec = "lm_model" not in cfg
    kind = "A codec" if codec else KINDS.get(str(model.get("language model")), "A language model")
    head = ["---", NO_LICENCE, "library_name: audiocraft", *([] if codec else ["pipeline_tag: text-to-audio"]),
            "tags: [magnet, audiocraft]", "---", "", f"# {name}", "",
            f"{kind} in AudioCraft's format, exported by the MAGNeT plugin.", ""]
    sections = {"Licence": [ASK], "Use": [] if codec else use(name), "Model": table(model), "Training": training(job),
                "Loss (nats per token)": losses(job), "Data": data(cfg), "Files": files(facts)}
    for title, lines in sections.items():
        if lines:
            head += [f"## {title}", "", *lines, ""]
    return "\n".join(head)


def use(name: str) -> list[str]:
    """Show how the model is loaded."""
    return ["```python", "from magnet_plugin import MAGNeT",
            f'model = MAGNeT.get_pretrained("{name}")   # this folder, or its name on the hub',
            'audio = model.generate(["a text like those of the training data"])', "```"]


def table(rows: tp.Mapping[str, tp.Any]) -> list[str]:
    """Format names and values as a table; absolute paths are shortened to their last part."""
    cells = {name: ", ".join(f"{key} ({kind})" for key, kind in value.items()) if isinstance(value, dict) else shorten(value)
             for name, value in rows.items()}
    return ["|  |  |", "| --- | --- |", *(f"| {name} | {value} |" for name, value in cells.items())] if cells else []


def training(job: Job | None) -> list[str]:
    """Describe the run: its settings, updates, batches, and where it ran."""
    if job is None:
        return []
    each, batch = get_value(job.cfg, "optim.updates_per_epoch"), get_value(job.cfg, "dataset.batch_size")
    made_with = ("measured_on", "cores", "magnet-plugin", "audiocraft", "torch")
    seconds = sum(epoch.get("train", {}).get("duration", 0.0) for epoch in job.history)
    rows: dict[str, tp.Any] = {
        "settings": "`" + " ".join(f"{key}={shorten(value.strip(chr(39)))}" for key, value in job.settings.items()) + "`",
        "epochs": f"{job.epochs} of {job.epochs_wanted or '?'}", "updates": job.epochs * each if each else None,
        "clips in a batch": batch, "training time (s)": f"{seconds:.0f}" if seconds else None,
        **{name.replace("_", " "): job.machine[name] for name in made_with if name in job.machine}}
    return table({name: value for name, value in rows.items() if value not in (None, "")})


def losses(job: Job | None) -> list[str]:
    """Tabulate the cross entropy of the epochs; of many epochs a selection, with the best and the last."""
    history = job.history if job else []
    rows = [(number, epoch["train"]["ce"], epoch["valid"]["ce"]) for number, epoch in enumerate(history, 1)
            if "ce" in epoch.get("train", {}) and "ce" in epoch.get("valid", {})]
    if not rows:
        return []
    best = min(rows, key=lambda row: row[2])
    step = -(-len(rows) // MOST_EPOCHS)
    shown = sorted({*rows[::step], best, rows[-1]})
    return ["| epoch | training | validation |", "| ---: | ---: | ---: |",
            *(f"| {number} | {train:.4f} | {valid:.4f} |" for number, train, valid in shown), "",
            f"The weights are those of epoch {best[0]}, which has the lowest validation loss."]


def data(cfg: tp.Any) -> list[str]:
    """Count clips and minutes of the splits whose manifests are still there."""
    rows = []
    for split in ("train", "valid", "evaluate"):
        try:
            lines = read_manifest(Path(str(cfg.datasource.get(split))))
        except (ValueError, AttributeError):
            continue
        rows.append(f"| {split} | {len(lines)} | {sum(line['duration'] for line in lines) / 60:.1f} |")
    return ["| split | clips | minutes |", "| --- | ---: | ---: |", *rows] if rows else []


def files(facts: tp.Mapping[str, tp.Any]) -> list[str]:
    """List the files."""
    return ["| file | bytes | content |", "| --- | ---: | --- |",
            *(f"| {file['file']} | {file['bytes']} | {file['kind']} |" for file in facts["files"])]
