"""The command `magnet data check`."""
from __future__ import annotations

import argparse
import sys
import typing as tp
from pathlib import Path

from .numbers import integer_from, number_above

if tp.TYPE_CHECKING:
    from ..data.advice import Advice
    from ..data.check import Split, Target

DESCRIPTION = """\
Open the audio of a data set and print, for each split, the number of files, their durations, sample rates and channels,
the shares of padding and silence, and what the captions are like; then what to set for `dora run`. Nothing is changed. The
exit status is 1 if a run would fail or learn nothing from the captions, otherwise 0."""


#: Options that describe the model and the run, and what `magnet inspect` calls them.
SETTINGS = {"segment_duration": "segment (s)", "sample_rate": "sample rate (Hz)", "channels": "channels", "batch_size": ""}


def add_check_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `magnet data check`."""
    parser.add_argument("source", type=Path, metavar="FOLDER_OR_MANIFEST",
                        help="output folder of `magnet data scan`, the folder of one manifest, or a folder or CSV file of "
                             "audio that was not scanned yet")
    parser.add_argument("--model", metavar="NAME",
                        help="model that is to be trained on the data: a release folder, a checkpoint, the name of a run or "
                             "//bundled/NAME; sets the following three (default: the bundled model)")
    parser.add_argument("--segment-duration", type=number_above(0), metavar="SECONDS",
                        help="dataset.segment_duration of the run (default: that of the model; 5)")
    parser.add_argument("--sample-rate", type=integer_from(1), metavar="HZ",
                        help="sample_rate of the run (default: that of the model; 16000)")
    parser.add_argument("--channels", type=integer_from(1), metavar="N",
                        help="channels of the run (default: those of the model; 1)")
    parser.add_argument("--batch-size", type=integer_from(1), metavar="N",
                        help="dataset.batch_size of the run (default: 16, as solver=magnet/finetune)")
    parser.add_argument("--json", action="store_true", help="print the facts and the advice as JSON")
    parser.set_defaults(run=run_check)


def run_check(args: argparse.Namespace) -> int:
    """Check a data set and print the report."""
    from ..data import advice, check
    target = check.Target(**{**settings_of(args.model), **{name: getattr(args, name) for name in SETTINGS
                                                           if getattr(args, name) is not None}})
    splits = check.check(args.source, target, progress=sys.stderr.isatty())
    found = advice.advise(splits, target)
    if args.json:
        print(check.as_json(splits, advice=[one._asdict() for one in found],
                            settings=[one.setting for one in found if one.setting]))
    else:
        print("\n".join([*table(splits), "", *captions(splits), "", *conclusions(found, splits, target)]))
    return 1 if any(one.needed for one in found) else 0


def settings_of(model: str | None) -> dict[str, tp.Any]:
    """Read the segment, sample rate and channels of a model; nothing without one.

    Raises:
        ValueError: the model does not exist, or states none of them.
    """
    if model is None:
        return {}
    from ..models.inspection import inspect, locate
    from ..sweeps.runs import resolve_name
    facts = inspect(locate(resolve_name(model)))["model"] or {}
    found = {name: facts[key] for name, key in SETTINGS.items() if key in facts}
    if not found:
        raise ValueError(f"--model {model}: its files state no segment or sample rate; set --segment-duration and "
                         "--sample-rate instead")
    return found


def table(splits: tp.Mapping[str, Split]) -> list[str]:
    """Format one line for each split."""
    lines = [f"{'split':<10}{'files':>7}{'total':>10}{'shortest':>10}{'median':>9}{'longest':>9}{'padding':>9}{'silence':>9}"
             "  sample rates, channels"]
    for name, split in splits.items():
        silence = "-" if split.silence is None else f"{split.silence:.0%}"
        rates = ", ".join(f"{rate} Hz{_times(count, split.files)}" for rate, count in split.sample_rates.items())
        channels = ", ".join(f"{'mono' if number == 1 else 'stereo' if number == 2 else f'{number} channels'}"
                             f"{_times(count, split.files)}" for number, count in split.channels.items())
        lines.append(f"{name:<10}{split.files:>7}{split.total / 60:>6.1f} min{split.shortest:>8.2f} s{split.median:>7.2f} s"
                     f"{split.longest:>7.2f} s{split.padding:>9.0%}{silence:>9}  {rates}; {channels}")
    listened = sum(split.listened for split in splits.values())
    files = sum(split.files for split in splits.values())
    if listened < files:
        lines.append(f"Silence was measured in {listened} of {files} files.")
    return lines


def _times(count: int, files: int) -> str:
    return "" if count == files else f" ({count})"


def captions(splits: tp.Mapping[str, Split]) -> list[str]:
    """Format the facts about captions."""
    lines = [f"{'captions':<10}{'missing':>9}{'from names':>12}{'repeated':>10}{'longest':>11}{'vocabulary':>14}"]
    for name, split in splits.items():
        one = split.captions
        lines.append(f"{name:<10}{one.missing:>9}{one.from_names:>12}{one.repeated:>10}{one.longest:>5} words"
                     f"{one.vocabulary:>8} words")
    return lines


def conclusions(found: tp.Sequence[Advice], splits: tp.Mapping[str, Split], target: Target) -> list[str]:
    """Format what to change and what to set."""
    lines = [f"- {one.reason}" for one in found if not one.setting]
    settings = [one for one in found if one.setting]
    if settings:
        lines += ["Set for `dora run`: " + " ".join(one.setting for one in settings),
                  *(f"  {one.setting}: {one.reason}" for one in settings)]
    train = splits.get("train")
    if train is not None and train.files:
        lines.append(f"train has {train.total / target.segment_duration:.0f} segments of {target.segment_duration:g} s: one "
                     f"pass is {train.total / target.segment_duration / target.batch_size:.1f} batches of "
                     f"{target.batch_size}")
    return lines or ["Nothing has to be changed."]
