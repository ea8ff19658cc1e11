"""Train, export and measure the bundled models, and write their cards.

    python -m tools.zoo codec --train -- optim.epochs=24
    python -m tools.zoo codec --from SIG --after OLDER --after OLDEST
    python -m tools.zoo magnet --from SIG --clips 96
    python -m tools.zoo magnet --rewrite-card
    python -m tools.zoo queue --help

`--from` names the run whose weights are exported, and `--after` each run that it continued, so that their steps and
training time are counted as well. The release folder is only replaced after everything has been measured.
"""
from __future__ import annotations

import argparse
import math
import shlex
import subprocess
import sys
import tempfile
import typing as tp
from pathlib import Path

from magnet_plugin.environment import dora_run
from magnet_plugin.metrics.machine import made_with
from magnet_plugin.models.checkpoints import BUNDLED, BUNDLED_PREFIX, CODEC_FILE, LM_FILE
from tools import zoo_queue
from tools.model_card import ABOUT, licence, write_card
from tools.run_history import TrainingRun, loss_summary, read_json, training_summary

SOLVERS = {"codec": "compression/tiny_16khz", "magnet": "magnet", "musicgen": "musicgen/tiny_16khz",
           "hybrid": "magnet/hybrid"}
# With uniform switches, a model that trains for few steps hardly ever sees a clip without a prefix.
OVERRIDES = {"hybrid": ["hybrid.parallel=0.1"]}
NAMES = {"codec": "codec-16khz", "magnet": "magnet-16khz", "musicgen": "musicgen-16khz", "hybrid": "hybrid-16khz"}
SOLVER_NAMES = {"codec": "compression", "magnet": "magnet", "musicgen": "musicgen", "hybrid": "hybrid_magnet"}
PACKAGES = ("magnet-plugin", "audiocraft", "torch", "torchaudio")
MAX_BYTES = {CODEC_FILE: 10_000_000, LM_FILE: 16_000_000}     # all models together have 60 MB
DEFAULT_CLIPS = 96


def source_name(source: str) -> str:
    """Return `//sig/SIG` for a bare Dora signature, and any other source unchanged."""
    return source if "/" in source else f"//sig/{source}"


def read_run(source: str) -> tuple[TrainingRun, tp.Any]:
    """Read a training run and its config (a DictConfig).

    Raises:
        ValueError: there is no checkpoint, it is not a Dora run, or its config has no `optim.updates_per_epoch`.
    """
    from magnet_plugin.models import checkpoints
    path = checkpoints.resolve(source_name(source))
    if path is None:
        raise ValueError(f"{source} has no checkpoint; give a Dora signature, or the path of a run's checkpoint.th")
    cfg = checkpoints.load_package(path, LM_FILE)["xp.cfg"]
    history = read_json(path.parent / "history.json")
    if not cfg.optim.updates_per_epoch:
        raise ValueError(f"{source} was trained without optim.updates_per_epoch, so its steps cannot be counted; train with "
                         "that setting")
    older = checkpoints.resolve(cfg.continue_from) if cfg.continue_from else None
    run = TrainingRun(path.parent.name, read_json(path.parent / ".argv.json"), history, int(cfg.optim.updates_per_epoch),
                      int(cfg.dataset.batch_size), str(cfg.device), int(cfg.num_threads),
                      older.parent.name if older else None)
    return run, cfg


def train(kind: str, overrides: tp.Sequence[str]) -> str:
    """Train with `dora run` and return the run as `//sig/SIG`.

    Raises:
        subprocess.CalledProcessError: the training failed.
    """
    from magnet_plugin.train import main as entry
    arguments = [f"solver={SOLVERS[kind]}", *OVERRIDES.get(kind, []), *overrides]
    subprocess.run(dora_run(arguments), check=True)
    return f"//sig/{entry.get_xp(arguments).sig}"


def find_data(cfg: tp.Any, folder: tp.Optional[str]) -> tuple[Path, Path]:
    """Return the manifest folders of training and held-out clips: in `folder`, or else the run's own.

    The run's data set is made first if it does not exist.
    """
    if folder:
        return Path(folder) / "egs" / "train", Path(folder) / "egs" / "evaluate"
    heldout = Path(cfg.datasource.evaluate)
    if not heldout.is_dir():
        from magnet_plugin.train import prepare_data
        prepare_data(cfg)
    return Path(cfg.datasource.train), heldout


def refer_to_bundled_codec(folder: Path, codec: str) -> None:
    """Replace the codec file of a release folder by a reference if its model was trained on a bundled codec.

    Args:
        folder: the release folder of a language model.
        codec: the config's `compression_model_checkpoint`.
    """
    from magnet_plugin.models.checkpoints import write_reference
    if codec.startswith(BUNDLED_PREFIX):
        write_reference(codec, folder / CODEC_FILE)


def measure(kind: str, folder: Path, run: TrainingRun, splits: tuple[Path, Path], clips: tp.Optional[int], seed: int
            ) -> dict[str, tp.Any]:
    """Measure the exported files in `folder`.

    Returns:
        The card's sections `model`, `heldout` and, for a language model, `validation`.
    """
    from magnet_plugin.models.loaders import load_codec
    codec = load_codec(folder)
    bits = math.log2(codec.cardinality)
    values: dict[str, tp.Any] = {
        "sample_rate": codec.sample_rate, "channels": codec.channels, "frame_rate": float(codec.frame_rate),
        "codebooks": codec.num_codebooks, "cardinality": codec.cardinality,
        "kbps": float(codec.frame_rate) * codec.num_codebooks * bits / 1000, "codec_parameters": count_parameters(codec)}
    if kind == "codec":
        from magnet_plugin.metrics.codec import measure_codec
        return {"model": values, "heldout": measure_codec(codec, splits[1], clips)}
    from magnet_plugin import MAGNeT
    from magnet_plugin.metrics.report import evaluate_model
    from magnet_plugin.models.autoregressive import AutoregressiveModel
    model: tp.Any = AutoregressiveModel.load(folder) if kind == "musicgen" else MAGNeT.get_pretrained(str(folder))
    sizes = model.lm.cfg.transformer_lm
    values |= {"parameters": count_parameters(model.lm), "dim": sizes.dim, "layers": sizes.num_layers,
               "heads": sizes.num_heads, "longest_clip_in_seconds": model.duration}
    if kind != "musicgen":
        values["span_len"] = model.lm.span_len
    return {"model": values, "heldout": evaluate_model(model, *splits, clips=clips or DEFAULT_CLIPS, seed=seed),
            "validation": {"uniform": math.log(codec.cardinality), **loss_summary(run.history)}}


def count_parameters(model: tp.Any) -> int:
    """Return the number of trained parameters."""
    return sum(value.numel() for value in model.parameters())


def file_sizes(folder: Path) -> dict[str, int]:
    """Return the sizes in bytes of a release folder's weight files.

    Raises:
        ValueError: a file is too large to be bundled.
    """
    sizes = {path.name: path.stat().st_size for path in sorted(folder.glob("*.bin"))}
    large = [f"{file} has {size} bytes, the maximum is {MAX_BYTES[file]}" for file, size in sizes.items()
             if size > MAX_BYTES[file]]
    if large:
        raise ValueError("the model is too large to be bundled: " + "; ".join(large))
    return sizes


def build(kind: str, source: str, after: tp.Sequence[str], out: Path, *, data: tp.Optional[str] = None,
          clips: tp.Optional[int] = None, seed: int = 0, notes: tp.Sequence[str] = (), command: tp.Sequence[str] = ()
          ) -> dict[str, tp.Any]:
    """Export and measure a run, write its card, then move everything to `out`; returns the card.

    Args:
        kind: a key of `SOLVERS`.
        source: the run to export.
        after: the runs that it continued.
        out: release folder.
        data: folder of the folk set; None uses the run's own data.
        clips: maximum number of held-out clips.
        seed: seed of the generated clips.
        notes: paragraphs that are added to the card.
        command: command line that is recorded in the card.
    Raises:
        ValueError: a run is of another kind, the chain of runs is incomplete, or a file is too large to be bundled.
    """
    import magnet_plugin
    magnet_plugin.register()
    from magnet_plugin.models.checkpoints import export
    (run, cfg), *older = [read_run(name) for name in (source, *after)]
    if cfg.solver != SOLVER_NAMES[kind]:
        raise ValueError(f"{source} is a run of solver={cfg.solver}, not of a {kind}; give a run of solver={SOLVERS[kind]}")
    training = training_summary([run, *(pair[0] for pair in older)])
    splits = find_data(cfg, data)
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="_", dir=out.parent) as name:
        folder = Path(name).resolve()
        export(source_name(source), folder, half=True)
        for copy in folder.glob("*.safetensors"):           # The package holds all weights once.
            copy.unlink()
        if kind != "codec":
            refer_to_bundled_codec(folder, cfg.compression_model_checkpoint)
        files = file_sizes(folder)
        settings = splits[1].parent.parent / "folk.json"
        arguments = read_json(settings)["arguments"] if settings.exists() else str(splits[1])
        card = {"name": NAMES[kind], "about": ABOUT[kind], "notes": list(notes),
                **measure(kind, folder, run, splits, clips, seed), "training": training,
                "data": arguments,
                "made_with": {"command": shlex.join(command), **made_with(BUNDLED.parent, PACKAGES)},
                "files": files, "licence": licence(arguments)}
        write_card(folder, card)
        out.mkdir(exist_ok=True)
        for path in folder.iterdir():
            path.replace(out / path.name)
    return card


def rewrite_card(kind: str, folder: Path, notes: tp.Sequence[str] = ()) -> dict[str, tp.Any]:
    """Rewrite the texts, file sizes and README of an existing card; its results stay as they were measured.

    Args:
        notes: paragraphs that replace the card's notes; if empty, the card keeps its own.
    """
    card = read_json(folder / "card.json")
    card |= {"about": ABOUT[kind], "licence": licence(card["data"]), "notes": list(notes) or card.get("notes", []),
             "files": file_sizes(folder)}
    write_card(folder, card)
    return card


def parser() -> argparse.ArgumentParser:
    """Return the parser of the options before `--`."""
    parser = argparse.ArgumentParser(prog="python -m tools.zoo", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kind", choices=sorted(SOLVERS), help="which bundled model")
    start = parser.add_mutually_exclusive_group(required=True)
    start.add_argument("--from", dest="source", help="Dora signature or checkpoint of a trained model")
    start.add_argument("--train", action="store_true", help="train first, with the Dora overrides that follow --")
    start.add_argument("--rewrite-card", action="store_true", help="only rewrite the texts of the card in --out")
    parser.add_argument("--after", action="append", default=[], help="a run that the exported one continued; repeatable")
    parser.add_argument("--clips", type=int, help=f"held-out clips to measure on (codec: all, others: {DEFAULT_CLIPS})")
    parser.add_argument("--data", help="folder of the folk set (default: the run's own data)")
    parser.add_argument("--out", type=Path, help="release folder (default: the bundled model's)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the generated clips (default: 0)")
    parser.add_argument("--note", action="append", default=[], help="paragraph to add to the card; repeatable")
    return parser


def main(arguments: tp.Optional[tp.Sequence[str]] = None) -> int:
    """Run the command line and return the exit status."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if given[:1] == ["queue"]:
        return zoo_queue.main(given[1:])
    own, overrides = (given[:given.index("--")], given[given.index("--") + 1:]) if "--" in given else (given, [])
    args = parser().parse_args(own)
    if overrides and not args.train:
        parser().error("overrides after -- need --train")
    out = args.out or BUNDLED / NAMES[args.kind]
    try:
        if args.rewrite_card:
            card = rewrite_card(args.kind, out, args.note)
        else:
            source = args.source or train(args.kind, overrides)
            card = build(args.kind, source, args.after, out, data=args.data, clips=args.clips, seed=args.seed,
                         notes=args.note, command=["python", "-m", "tools.zoo", *given])
    except (ValueError, ImportError, subprocess.CalledProcessError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    for name, value in card["heldout"].items():
        print(f"{name:32} {value:.4g}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
