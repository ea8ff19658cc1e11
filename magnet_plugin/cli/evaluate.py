"""`magnet evaluate`: scores of a model on held-out captions."""
from __future__ import annotations

import argparse
import typing as tp
from pathlib import Path

from ..bench.scores import table
from ..metrics import METRICS
from . import model_options
from .deferred_imports import defer_imports
from .numbers import integer_from
from .output import check_folder, say


def add_parser(commands: tp.Any, common: argparse.ArgumentParser) -> None:
    """Add `magnet evaluate`."""
    one = commands.add_parser("evaluate", parents=[common], help="score a model on held-out captions", description=(
        "Generate clips from held-out captions and score them by judges that the model was not trained against, with 95% "
        "intervals over clips and seeds. The same judges score real clips, and the held-out clips after encoding and "
        "decoding, which bound what a model can reach. Prints a Markdown table."))
    one.add_argument("names", nargs="+", metavar="MODEL", help="models on one codec: //bundled/NAME, //sig/SIGNATURE, "
                     "release folders or names on the hub; MAGNeT, MusicGen or AudioGen")
    one.add_argument("--metrics", nargs="+", choices=METRICS, default=METRICS[:3], metavar="METRIC",
                     help="instruments: share of clips whose instrument is recognised; frechet, kernel: distances to the "
                          "real clips; melody: transcribed notes, which needs basic-pitch (default: "
                          "instruments frechet kernel)")
    one.add_argument("--clips", type=integer_from(3), default=96, metavar="N",
                     help="number of held-out captions (default: 96)")
    one.add_argument("--seeds", type=integer_from(1), default=3, metavar="N",
                     help="number of seeds; each generates all captions once (default: 3)")
    one.add_argument("--data", type=Path, metavar="DIR", help="folder of the folk data set, or output folder of "
                     "`magnet data scan` (default: the data set of solver=magnet, which is rendered if missing)")
    one.add_argument("--json", type=Path, metavar="FILE", help="also write the scores, the command and the "
                     "versions to a file")
    model_options.add_decoding(one)
    one.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Evaluate the models one after the other and print the table."""
    args.base = {}
    model_options.clip_settings.check(model_options.params(args))
    for name in args.names:
        model_options.check_exists(name, "MODEL")
    if args.json is not None:
        check_folder("--json", args.json.parent)
    if args.data is not None and not args.data.is_dir():
        raise ValueError(f"--data {args.data} is not a folder; give that of a data set")
    defer_imports()
    from .. import register
    register()
    from ..bench import records
    from ..bench.quality import folk_splits
    from ..metrics.evaluation import Evaluation
    record = records.new_record("evaluate")
    models = {name: load(name, model_options.params(args)) for name in args.names}
    codec = next(iter(models.values())).compression_model
    say("Judging real clips …")
    evaluation = Evaluation(codec, folk_splits(args.data), args.clips, args.metrics)
    rows = evaluation.bounds()
    for name, model in models.items():
        say(f"Judging {name} …")
        rows[name] = evaluation.evaluate(model, range(args.seeds), say).scores()
        record["cases"] = [{"name": row, "scores": scores} for row, scores in rows.items()]
        if args.json:
            records.write(record, args.json)
    print(table(rows), end="")
    return 0


def load(name: str, params: tp.Mapping[str, tp.Any]) -> tp.Any:
    """Load a MAGNeT, or else a MusicGen or AudioGen; only a MAGNeT takes decoding options.

    Raises:
        ValueError: there is no such model, or it takes no options.
    """
    from .. import MAGNeT
    from ..models.autoregressive import AutoregressiveModel
    try:
        model = MAGNeT.get_pretrained(name)
    except ValueError as error:
        try:
            other = AutoregressiveModel.load(name)
        except (ValueError, KeyError):
            raise error from None
        if params:
            raise ValueError(f"{name} is no MAGNeT and takes no decoding options; evaluate it by itself") from None
        return other
    model.set_generation_params(**params)
    return model
