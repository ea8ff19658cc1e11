"""A job's history as one flat row: `STAGE.METRIC` -> value. Live tables and reports show the same rows."""
from __future__ import annotations

import math
import re
import statistics
import typing as tp

from .records import Config, Epoch, Job, look

Row = dict[str, float]
STAGES = ("train", "valid", "evaluate", "generate")


class Metric(tp.NamedTuple):
    """How a metric is shown.

    Args:
        head: of its column.
        format: Python's.
        better: -1 where less is better, 1 where more is, 0 where neither.
        axis: of a plot, with its unit.
    """
    head: str
    format: str
    better: int
    axis: str


#: By pattern, the first that fits. Those of the evaluate stage are AudioCraft's, and the names of `magnet_plugin.metrics`.
METRICS: tuple[tuple[str, Metric], ...] = (
    (r"ce", Metric("ce", ".3f", -1, "cross entropy, nats a token")),
    (r"best_ce", Metric("best ce", ".3f", -1, "least cross entropy, nats a token")),
    (r"best_epoch", Metric("at epoch", ".0f", 0, "epoch of the least cross entropy")),
    (r"ce_(\w+)", Metric(r"ce \1", ".3f", -1, r"cross entropy of \1, nats a token")),
    (r"ppl", Metric("ppl", ".1f", -1, "perplexity")),
    (r"ppl_(\w+)", Metric(r"ppl \1", ".1f", -1, r"perplexity of \1")),
    (r"fad(?:_(\w+))?", Metric("FAD", ".3f", -1, "Fréchet audio distance")),
    (r"kld", Metric("KLD", ".3f", -1, "KL divergence, nats")),
    (r"kld_(\w+)", Metric(r"KLD \1", ".3f", -1, r"KL divergence \1, nats")),
    (r"text_consistency", Metric("text consistency", ".3f", 1, "text consistency, cosine")),
    (r"chroma_cosine", Metric("chroma", ".3f", 1, "chroma similarity, cosine")),
    (r"instrument_accuracy", Metric("instrument", ".3f", 1, "instrument heard right, share of clips")),
    (r"(\w*accuracy\w*)", Metric(r"\1", ".3f", 1, r"\1")),
    (r"frechet", Metric("Fréchet", ".1f", -1, "Fréchet distance in the codec's latents")),
    (r"(\w*frechet\w*)", Metric(r"\1", ".3f", -1, r"\1")),
    (r"(likelihood)", Metric(r"\1", ".3f", 1, "log-likelihood, nats a token")),
    (r"si_snr_db(\w*)", Metric("SI-SNR", ".2f", 1, "SI-SNR, dB")),
    (r"mel_distance_db", Metric("mel distance", ".2f", -1, "mel distance, dB")),
    (r"rtf", Metric("rtf", ".3f", -1, "seconds a batch per second of audio")),
    (r"seconds_per_clip", Metric("s/clip", ".3f", -1, "seconds per clip")),
    (r"seconds_per_update", Metric("s/update", ".3f", -1, "seconds per update")),
    (r"duration", Metric("seconds", ".1f", 0, "seconds")),
    (r"(.+)", Metric(r"\1", ".4g", 0, r"\1")),
)
#: Columns of a stage in their order; what they do not name comes after them, in the stages that `OPEN` names.
SHOWN: dict[str, tuple[str, ...]] = {
    "train": ("ce", "seconds_per_update", "duration"),
    "valid": ("ce", "ppl", "ce_prompt", r"ce_q\d+", "best_ce", "best_epoch"),
    "evaluate": ("ce", "ppl", "ce_prompt", r"ce_q\d+", "fad.*", "kld", "text_consistency", "chroma_cosine"),
    "generate": ("seconds_per_clip", "rtf"),
}
OPEN = ("evaluate", "generate")
HIDDEN = r"ppl_\w+|kld_\w+|epochs"


def metric(name: str) -> Metric:
    """How a metric of this name is shown.

    >>> metric("ce_q2").head, metric("instrument_accuracy").better
    ('ce q2', 1)
    """
    for pattern, found in METRICS:
        match = re.fullmatch(pattern, name)
        if match:
            texts = [match.expand(text).replace("_", " ") if r"\1" in text else text for text in (found.head, found.axis)]
            return Metric(texts[0], found.format, found.better, texts[1])
    raise AssertionError("the last pattern fits all")


def flatten(history: tp.Sequence[Epoch], cfg: Config, stages: tp.Optional[tp.Mapping[str, dict[str, float]]] = None) -> Row:
    """The last metrics of each stage, the best validation so far, and what follows from them.

    Args:
        history: Dora's, an entry per epoch.
        cfg: the job's config, as far as it is known.
        stages: metrics of stages that were run alone.
    Returns:
        `STAGE.METRIC` -> value, NaN where it was NaN. Beside what the solver wrote: `valid.best_ce` and
        `valid.best_epoch` (from 1; NaN counts for nothing), `train.seconds_per_update` (the median epoch's),
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
    updates = look(cfg, "optim.updates_per_epoch")
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
    """Seconds that a clip of the generate stage took on one rank; None where length or batch are not known.

    The solver notes `rtf`, the mean over batches of (seconds a batch) / (seconds of audio a clip).
    """
    def of_split(name: str) -> tp.Any:
        own = look(cfg, f"dataset.generate.{name}")
        return look(cfg, f"dataset.{name}") if own is None else own

    length = look(cfg, "generate.lm.gen_duration") or of_split("segment_duration")
    batch, clips = of_split("batch_size"), of_split("num_samples")
    if rtf is None or not length or not batch:
        return None
    batches = math.ceil(clips / batch) if clips else 1
    return rtf * length * batches / (clips or batch)


def row_of(job: Job) -> Row:
    """The row of a job."""
    return flatten(job.history, job.cfg, job.stages)


def columns(rows: tp.Iterable[Row], stages: tp.Sequence[str] = STAGES) -> list[str]:
    """Keys of the rows that a table shows, in its order; those that no row has are left out."""
    keys = sorted({key for row in rows for key in row}, key=natural)
    found: list[str] = []
    for stage in stages:
        own = [key for key in keys if key.startswith(f"{stage}.")]
        names = [*SHOWN[stage], *([".+"] if stage in OPEN else [])]
        for pattern in names:
            for key in own:
                name = key.split(".", 1)[1]
                if key not in found and re.fullmatch(pattern, name) and not re.fullmatch(HIDDEN, name):
                    found.append(key)
    return found


def natural(text: str) -> list[tp.Any]:
    """A sorting key that knows 9 < 10."""
    return [(0, int(part), "") if part.isdigit() else (1, 0, part) for part in re.split(r"(\d+)", text)]
