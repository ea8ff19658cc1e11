"""Turn a job's history into one flat row, `STAGE.METRIC` -> value. Live tables and reports show the same rows."""
from __future__ import annotations

import math
import re
import statistics
import typing as tp

from .records import Config, Epoch, Job, get_value

Row = dict[str, float]
STAGES = ("train", "valid", "evaluate", "generate")


class Metric(tp.NamedTuple):
    """How a metric is displayed.

    Args:
        head: Column header.
        format: Python format specification.
        better: -1 if lower is better, 1 if higher is, 0 if neither.
        axis: Axis label in plots, with the unit.
    """
    head: str
    format: str
    better: int
    axis: str


#: Patterns of names; the first match counts. Metrics of `evaluate` are AudioCraft's and those of `magnet_plugin.metrics`.
METRICS: tuple[tuple[str, Metric], ...] = (
    (r"ce", Metric("ce", ".3f", -1, "cross entropy, nats per token")),
    (r"best_ce", Metric("best ce", ".3f", -1, "lowest cross entropy, nats per token")),
    (r"best_epoch", Metric("at epoch", ".0f", 0, "epoch of the lowest cross entropy")),
    (r"ce_(\w+)", Metric(r"ce \1", ".3f", -1, r"cross entropy of \1, nats per token")),
    (r"ppl", Metric("ppl", ".1f", -1, "perplexity")),
    (r"ppl_(\w+)", Metric(r"ppl \1", ".1f", -1, r"perplexity of \1")),
    (r"fad(?:_(\w+))?", Metric("FAD", ".3f", -1, "Fréchet audio distance")),
    (r"kld", Metric("KLD", ".3f", -1, "KL divergence, nats")),
    (r"kld_(\w+)", Metric(r"KLD \1", ".3f", -1, r"KL divergence \1, nats")),
    (r"text_consistency", Metric("text consistency", ".3f", 1, "text consistency, cosine")),
    (r"chroma_cosine", Metric("chroma", ".3f", 1, "chroma similarity, cosine")),
    (r"instrument_accuracy", Metric("instrument", ".3f", 1, "instrument accuracy, share of clips")),
    (r"(\w*accuracy\w*)", Metric(r"\1", ".3f", 1, r"\1")),
    (r"frechet", Metric("Fréchet", ".1f", -1, "Fréchet distance in the codec's latents")),
    (r"(\w*frechet\w*)", Metric(r"\1", ".3f", -1, r"\1")),
    (r"(likelihood)", Metric(r"\1", ".3f", 1, "log-likelihood, nats per token")),
    (r"si_snr_db(\w*)", Metric("SI-SNR", ".2f", 1, "SI-SNR, dB")),
    (r"mel_distance_db", Metric("mel distance", ".2f", -1, "mel distance, dB")),
    (r"rtf", Metric("rtf", ".3f", -1, "seconds per batch and second of audio")),
    (r"seconds_per_clip", Metric("s/clip", ".3f", -1, "seconds per clip")),
    (r"seconds_per_update", Metric("s/update", ".3f", -1, "seconds per update")),
    (r"duration", Metric("seconds", ".1f", 0, "seconds")),
    (r"(.+)", Metric(r"\1", ".4g", 0, r"\1")),
)
#: Columns per stage, in display order. Stages in `OPEN_STAGES` show all other metrics after these.
SHOWN: dict[str, tuple[str, ...]] = {
    "train": ("ce", "seconds_per_update", "duration"),
    "valid": ("ce", "ppl", "ce_prompt", r"ce_q\d+", "best_ce", "best_epoch"),
    "evaluate": ("ce", "ppl", "ce_prompt", r"ce_q\d+", "fad.*", "kld", "text_consistency", "chroma_cosine"),
    "generate": ("seconds_per_clip", "rtf"),
}
OPEN_STAGES = ("evaluate", "generate")
HIDDEN = r"ppl_\w+|kld_\w+|epochs"


def metric(name: str) -> Metric:
    """Return how the metric of this name is displayed.

    >>> metric("ce_q2").head, metric("instrument_accuracy").better
    ('ce q2', 1)
    """
    for pattern, found in METRICS:
        match = re.fullmatch(pattern, name)
        if match:
            texts = [match.expand(text).replace("_", " ") if r"\1" in text else text for text in (found.head, found.axis)]
            return Metric(texts[0], found.format, found.better, texts[1])
    raise AssertionError("the last pattern matches every name")


def flatten(history: tp.Sequence[Epoch], cfg: Config, stages: tp.Optional[tp.Mapping[str, dict[str, float]]] = None) -> Row:
    """Collect the last metrics of each stage, the best validation so far, and values derived from them.

    Args:
        history: Dora's history, one entry per epoch.
        cfg: The job's config, as far as it is known.
        stages: Metrics of stages that were run by themselves.
    Returns:
        `STAGE.METRIC` -> value; NaN stays NaN. In addition to the solver's metrics: `valid.best_ce` and
        `valid.best_epoch` (counted from 1, ignoring NaN), `train.seconds_per_update` (of the median epoch) and
        `generate.seconds_per_clip`.
    """
    last: dict[str, dict[str, float]] = {}
    seen: dict[str, int] = {}
    for number, epoch in enumerate(history, 1):
        for stage, metrics in epoch.items():
            last[stage], seen[stage] = metrics, number
    for stage, metrics in (stages or {}).items():
        if metrics.get("epochs", 0) >= seen.get(stage, 0):
            last[stage] = metrics
    row = {f"{stage}.{name}": float(value) for stage, metrics in last.items() for name, value in metrics.items()
           if isinstance(value, (int, float)) and not isinstance(value, bool) and name != "epochs"}
    losses = {number: epoch["valid"]["ce"] for number, epoch in enumerate(history, 1)
              if math.isfinite(_number(epoch.get("valid", {}).get("ce")))}
    if losses:
        best = min(losses, key=lambda number: losses[number])
        row.update({"valid.best_ce": losses[best], "valid.best_epoch": best})
    updates = get_value(cfg, "optim.updates_per_epoch")
    durations = [epoch["train"]["duration"] for epoch in history if "duration" in epoch.get("train", {})]
    if updates and durations:
        row["train.seconds_per_update"] = statistics.median(durations) / updates
    seconds = seconds_per_clip(row.get("generate.rtf"), cfg)
    if seconds is not None:
        row["generate.seconds_per_clip"] = seconds
    return row


def _number(value: tp.Any) -> float:
    return float(value) if isinstance(value, (int, float)) else math.nan


def seconds_per_clip(rtf: tp.Optional[float], cfg: Config) -> tp.Optional[float]:
    """Return the seconds per clip of the generate stage on one rank; None if the length or the batch size is unknown.

    The solver stores `rtf`, the mean over batches of (seconds per batch) / (seconds of audio per clip).
    """
    def of_split(name: str) -> tp.Any:
        own = get_value(cfg, f"dataset.generate.{name}")
        return get_value(cfg, f"dataset.{name}") if own is None else own

    length = get_value(cfg, "generate.lm.gen_duration") or of_split("segment_duration")
    batch, clips = of_split("batch_size"), of_split("num_samples")
    if rtf is None or not length or not batch:
        return None
    batches = math.ceil(clips / batch) if clips else 1
    return rtf * length * batches / (clips or batch)


def row_of(job: Job) -> Row:
    """Return the row of a job."""
    return flatten(job.history, job.cfg, job.stages)


def columns(rows: tp.Iterable[Row], stages: tp.Sequence[str] = STAGES) -> list[str]:
    """Return the keys of the rows that a table shows, in display order; only keys that some row has."""
    keys = sorted({key for row in rows for key in row}, key=natural_key)
    found: list[str] = []
    for stage in stages:
        own = [key for key in keys if key.startswith(f"{stage}.")]
        names = [*SHOWN[stage], *([".+"] if stage in OPEN_STAGES else [])]
        for pattern in names:
            for key in own:
                name = key.split(".", 1)[1]
                if key not in found and re.fullmatch(pattern, name) and not re.fullmatch(HIDDEN, name):
                    found.append(key)
    return found


def natural_key(text: str) -> list[tp.Any]:
    """Return a sorting key that compares embedded numbers by value: 9 < 10."""
    return [(0, int(part), "") if part.isdigit() else (1, 0, part) for part in re.split(r"(\d+)", text)]
