"""`magnet bench`: measure the plugin against its baselines, and write the table of results."""
from __future__ import annotations

import argparse
import json
import typing as tp
from pathlib import Path

from ..bench.settings import SIZES, TABLES
from . import bench_claims, bench_editing, bench_scale
from .bench_options import add_data
from .device import HELP as DEVICE_HELP
from .device import get_device
from .numbers import integer_from
from .output import say, writable_folder

RESULTS, FIRST_HOUR = Path("docs/results"), Path("first-hour")


def add_parser(commands: tp.Any, common: argparse.ArgumentParser) -> None:
    """Add `bench` and its commands."""
    bench = commands.add_parser(
        "bench", parents=[common], help="measure speed and quality, or estimate the training speed on many GPUs",
        description="Measure the plugin and its baselines, one after the other on the same machine, and write the results "
                    "as JSON files and as a page of tables, bench.md.")
    names = bench.add_subparsers(dest="what", required=True, metavar="COMMAND")

    def add(name: str, text: str, run: tp.Callable[[argparse.Namespace], int], more: str = "") -> argparse.ArgumentParser:
        one = names.add_parser(name, parents=[common], help=text, description=text[0].upper() + text[1:] + "." + more)
        if name == "first-hour":
            one.add_argument("--out", type=writable_folder, default=FIRST_HOUR, metavar="DIR",
                             help=f"folder of the JSON files (default: {FIRST_HOUR})")
        elif name != "scale":
            one.add_argument("--out", type=writable_folder, default=RESULTS, metavar="DIR",
                             help=f"folder of the JSON files and of bench.md (default: {RESULTS})")
        one.set_defaults(run=run)
        return one

    for name, text in (("decode", "measure the time of whole clips and of single decoding steps, compared with AudioCraft"),
                       ("train", "measure the time of training updates, compared with AudioCraft"),
                       ("startup", "measure the time from the start of `magnet generate` to its end, and of imports")):
        one = add(name, text, measure_speed)
        one.add_argument("--device", metavar="DEVICE", help=DEVICE_HELP)
        if name != "startup":
            one.add_argument("--only", action="append", choices=SIZES, metavar="SIZE",
                             help=f"measure only this model size; may be repeated; one of {', '.join(SIZES)} (default: all "
                                  "sizes that are practical on the device)")
        one.add_argument("--smoke", action="store_true", help="measure one small case, to check that everything runs")
    add_first_hour_arguments(add(
        "first-hour", "run the checks and measurements that tell most about a new GPU, in at most an hour", run_first_hour,
        " Each step runs in its own process with a time limit and writes NAME.json to DIR before the next one begins. Steps "
        "that have succeeded are not repeated, so the same command resumes an interrupted run."))
    add_quality_arguments(add(
        "quality", "measure how decoding settings affect the quality of the bundled models", measure_quality,
        " Runs on the CPU. Each setting is one row of the table: instrument accuracy, Fréchet distance, log-likelihood and "
        "seconds per clip. Rows of an earlier run with the same clips and seeds are not measured again."))
    add_codec_arguments(add(
        "codec", "measure what of the music survives codecs", measure_codecs,
        " Runs on the CPU and on the folk data set: notes that a transcriber hears, instruments that a classifier "
        "recognises, mel distance. Needs onnxruntime, mir_eval and basic-pitch."))
    bench_editing.add_arguments(add(
        "editing", "measure how well the bundled model edits clips and generates long ones", bench_editing.run,
        " Runs on the CPU, on held-out clips of the folk data set: the distance from an inpainted second to the real one, "
        "the smoothness of its seams, variations, loops, and the drift of 30-second clips. Units of an earlier run with the "
        "same clips and seeds are not measured again."))
    bench_claims.add_arguments(add("claims", bench_claims.HELP, bench_claims.run, bench_claims.MORE))
    add("table", "write bench.md, claims.md and their pictures again from the JSON files, without measuring", write_table)
    bench_scale.add_arguments(add("scale", "estimate how long a training takes on many GPUs, and whether it fits",
                                  bench_scale.run, " Nothing is measured; docs/scale.md lists the assumptions."))


def add_first_hour_arguments(one: argparse.ArgumentParser) -> None:
    """Add the options of `magnet bench first-hour`."""
    one.add_argument("--device", metavar="DEVICE", help=DEVICE_HELP)
    one.add_argument("--smoke", action="store_true", help="run all steps in tiny sizes and without the GPU tests")
    one.add_argument("--step", metavar="NAME",
                     help="run only this measurement, in this process, and print its result as JSON; no file is written")


def add_quality_arguments(one: argparse.ArgumentParser) -> None:
    """Add the options of `magnet bench quality`."""
    one.add_argument("--table", default="speed", choices=TABLES,
                     help="settings to compare: those that make decoding faster (speed), or rescoring, prompts and hybrid "
                          "models (rescoring) (default: speed)")
    one.add_argument("--clips", type=integer_from(1), default=48, metavar="N",
                     help="number of held-out captions, at least 1; at most as many as the data set has (default: 48)")
    one.add_argument("--seeds", type=integer_from(1), default=3, metavar="N",
                     help="number of random seeds, at least 1; each generates all captions once (default: 3)")
    add_data(one)
    one.add_argument("--only", action="append", metavar="TEXT",
                     help="measure only rows whose names contain TEXT; may be repeated (default: all rows)")


def add_codec_arguments(one: argparse.ArgumentParser) -> None:
    """Add the options of `magnet bench codec`."""
    one.add_argument("codecs", nargs="+", metavar="LABEL=NAME",
                     help="codecs to compare: a label for the table, and a bundled model (//bundled/codec-16khz), a run "
                          "(//sig/SIG) or a release folder")
    add_data(one)
    one.add_argument("--clips", type=integer_from(1), default=96, metavar="N",
                     help="number of held-out clips, at least 1 (default: 96)")
    one.add_argument("--training-clips", type=integer_from(2), default=2000, metavar="N",
                     help="number of real clips that the instrument classifier is trained on, at least 2 (default: 2000)")
    one.add_argument("--updates", type=integer_from(0), default=0, metavar="N",
                     help="also train solver=magnet on each codec's tokens for N updates, and report its cross entropy on "
                          "the validation split (default: 0, no training)")
    one.add_argument("--override", action="append", default=[], metavar="KEY=VALUE",
                     help="setting of that training, as `dora run` takes it; may be repeated")


def measure_codecs(args: argparse.Namespace) -> int:
    """Measure the codecs, and write the table.

    Raises:
        ValueError: a codec has no label, or two have the same.
    """
    pairs = [text.partition("=") for text in args.codecs]
    wrong = [text for text, (label, equals, name) in zip(args.codecs, pairs) if not (label and equals and name)]
    if wrong:
        raise ValueError(f"{wrong[0]} has no label; give LABEL=NAME, for example bundled=//bundled/codec-16khz")
    labels = [label for label, _, _ in pairs]
    if len(set(labels)) < len(labels):
        raise ValueError(f"{' '.join(args.codecs)}: two codecs have the same label; give each another LABEL")
    from .. import register
    from ..bench import codecs, quality
    register()
    args.out.mkdir(parents=True, exist_ok=True)
    codecs.measure({label: name for label, _, name in pairs}, quality.folk_splits(args.data), args.clips,
                   args.training_clips, args.updates, args.override, say, args.out)
    return write_table(args)


def measure_speed(args: argparse.Namespace) -> int:
    """Run the cases of `decode`, `train` or `startup`, and write the table.

    Raises:
        ValueError: no case is left, or the device is not available.
    """
    device = get_device(args.device, ("cpu", "cuda"))
    from .. import register
    from ..bench import decode, records, startup, train
    module: tp.Any = {"decode": decode, "train": train, "startup": startup}[args.what]
    cases = module.cases(device, args.smoke)
    if args.what != "startup" and args.only:
        sizes = dict.fromkeys(case.size for case in cases)
        cases = [case for case in cases if case.size in args.only]
        if not cases:
            raise ValueError(f"--only {' '.join(args.only)}: {args.what} has no case of this size on {device.type}; give "
                             f"one of {', '.join(sizes)}")
    register()
    args.out.mkdir(parents=True, exist_ok=True)
    records.measure_cases(args.what, cases, lambda case: module.measure(case, device, say), args.out, device)
    return write_table(args)


def run_first_hour(args: argparse.Namespace) -> int:
    """Run the plan and print its table, or run one measurement of it and print its result.

    Returns:
        1 if a step failed or exceeded its limit, otherwise 0.
    Raises:
        ValueError: the device is not available, or a CPU without `--smoke`.
    """
    device = get_device(args.device, ("cpu", "cuda"))
    if device.type == "cpu" and not args.smoke:
        raise ValueError("first-hour measures in sizes for a GPU, and the device is cpu; give --device cuda, or --smoke "
                         "to run all steps in tiny sizes")
    if args.step:
        from .. import register
        register()
        from ..bench import first_hour_steps
        found = first_hour_steps.measure(args.step, device, args.smoke, say)
        print(json.dumps(found))
        return 1 if found.get("failed") else 0
    from ..bench import first_hour
    args.out.mkdir(parents=True, exist_ok=True)
    entries = first_hour.run(first_hour.plan(str(device), args.smoke), args.out, say)
    print(first_hour.summarize(entries), end="")
    return 1 if any(entry["status"] in ("failed", "late") for entry in entries) else 0


def measure_quality(args: argparse.Namespace) -> int:
    """Run the rows of a table of quality, and write the table."""
    from .. import register
    from ..bench import quality
    register()
    quality.measure(args.table, args.data, args.clips, range(args.seeds), say, args.out, args.only or ())
    return write_table(args)


def write_table(args: argparse.Namespace) -> int:
    """Write bench.md and claims.md from the JSON files, and print their paths."""
    from ..bench import table
    from ..bench.claims import page
    args.out.mkdir(parents=True, exist_ok=True)
    print(table.write(args.out))
    if claims := page.write(args.out):
        print(claims)
    return 0
