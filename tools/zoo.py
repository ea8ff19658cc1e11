"""The recipe of the bundled models: train, export, measure what was exported, write the card.

    python -m tools.zoo codec --train -- optim.epochs=24
    python -m tools.zoo codec --from SIG --after OLDER --after OLDEST
    python -m tools.zoo magnet --from SIG --clips 96

`--from` names the run whose weights are exported, `--after` the runs that it was continued from, whose steps and
seconds count as well. The release folder is replaced once all is measured; until then nothing in it changes.
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

from magnet_plugin.metrics.card import write_card
from magnet_plugin.metrics.history import Run, loss_figures, read_json, training_figures
from magnet_plugin.metrics.machine import made_with
from magnet_plugin.models.checkpoints import BUNDLED, CODEC_FILE, LM_FILE

SOLVERS = {"codec": "compression/tiny_16khz", "magnet": "magnet", "musicgen": "musicgen/tiny_16khz",
           "hybrid": "magnet/hybrid"}
NAMES = {"codec": "codec-16khz", "magnet": "magnet-16khz", "musicgen": "musicgen-16khz", "hybrid": "hybrid-16khz"}
RUNS_AS = {"codec": "compression", "magnet": "magnet", "musicgen": "musicgen", "hybrid": "hybrid_magnet"}
PACKAGES = ("magnet-plugin", "audiocraft", "torch", "torchaudio")
MOST_BYTES = {CODEC_FILE: 4_000_000, LM_FILE: 10_000_000}
ABOUT = {
    "codec": ["A small EnCodec for folk tunes on sampled instruments: audio to tokens and back. MAGNeT's default "
              "recipe and its demo run on it, on any machine, without a download.",
              "It knows the folk set alone, and the table says how close it comes. It is no codec for speech or for "
              "music in general, and no stand-in for the published EnCodec models."],
    "magnet": ["A tiny MAGNeT with its codec: it plays a folk tune from a sentence such as `a fast reel in D major "
               "played on the violin`. It shows the whole path from data to audio, and gives tests a model that was "
               "really trained.",
               "It has learned the words of the folk set and no others, and the table says how far it heeds them. It "
               "is no model for making music with: those are the published ones, which are far larger."],
    "musicgen": ["A small MusicGen (delay pattern, one token after the other) on the codec and the folk set of "
                 "`//bundled/magnet-16khz`: its rescorer, the model that begins its clips, and the yardstick beside it.",
                 "It has learned the words of the folk set and no others. It is no model for making music with."],
    "hybrid": ["A tiny Hybrid-MAGNeT: it writes the first seconds token by token and fills in the rest in parallel, with "
               "one set of weights.",
               "It has learned the words of the folk set and no others, in few steps. It is no model for making music."],
}
LICENCE = [
    "The tunes behind the training audio are traditional or of the 19th century, the chorales are by J. S. Bach; none "
    "is under copyright. No recording of a performance was used.",
    "The audio was rendered with the SoundFont TimGM6mb, which is under the GPL. The SoundFont is not included here; "
    "the weights are under the plugin's own licence.",
]


def source_name(source: str) -> str:
    """`//sig/SIG` for a bare signature; anything else as it is."""
    return source if "/" in source else f"//sig/{source}"


def read_run(source: str) -> tuple[Run, tp.Any]:
    """A training run and its config (DictConfig).

    Raises:
        ValueError: no checkpoint is there, it is no run of Dora's, or the length of its epochs is not in its config.
    """
    from magnet_plugin.models import checkpoints
    path = checkpoints.resolve(source_name(source))
    if path is None:
        raise ValueError(f"{source}: no checkpoint there; give a Dora signature, or the path of a run's checkpoint.th")
    cfg = checkpoints.load_package(path, LM_FILE)["xp.cfg"]
    history = read_json(path.parent / "history.json")
    if not cfg.optim.updates_per_epoch:
        raise ValueError(f"{source} was trained without optim.updates_per_epoch: its steps cannot be told")
    older = checkpoints.resolve(cfg.continue_from) if cfg.continue_from else None
    run = Run(path.parent.name, read_json(path.parent / ".argv.json"), history, int(cfg.optim.updates_per_epoch),
              int(cfg.dataset.batch_size), str(cfg.device), int(cfg.num_threads), older.parent.name if older else None)
    return run, cfg


def train(kind: str, overrides: tp.Sequence[str]) -> str:
    """Train by `dora run`; gives the run's `//sig/SIG`.

    Raises:
        subprocess.CalledProcessError: the training failed.
    """
    from magnet_plugin.train import main as entry
    arguments = [f"solver={SOLVERS[kind]}", *overrides]
    subprocess.run([sys.executable, "-m", "dora", "-P", "magnet_plugin", "run", *arguments], check=True)
    return f"//sig/{entry.get_xp(arguments).sig}"


def find_data(cfg: tp.Any, folder: tp.Optional[str]) -> tuple[Path, Path]:
    """Manifest folders of training and of held-out clips: below `folder`, or the run's own, made if need be."""
    if folder:
        return Path(folder) / "egs" / "train", Path(folder) / "egs" / "evaluate"
    heldout = Path(cfg.datasource.evaluate)
    if not heldout.is_dir():
        from magnet_plugin.train import prepare_data
        prepare_data(cfg)
    return Path(cfg.datasource.train), heldout


def measure(kind: str, folder: Path, run: Run, splits: tuple[Path, Path], clips: tp.Optional[int], seed: int
            ) -> dict[str, tp.Any]:
    """`model`, `heldout` and, for a language model, `validation`: figures of the exported files and of the run's history."""
    from magnet_plugin.models.loaders import load_codec
    codec = load_codec(folder)
    bits = math.log2(codec.cardinality)
    figures: dict[str, tp.Any] = {
        "sample_rate": codec.sample_rate, "channels": codec.channels, "frame_rate": float(codec.frame_rate),
        "codebooks": codec.num_codebooks, "cardinality": codec.cardinality,
        "kbps": float(codec.frame_rate) * codec.num_codebooks * bits / 1000, "codec_parameters": parameters(codec)}
    if kind == "codec":
        from magnet_plugin.metrics.codec import measure_codec
        return {"model": figures, "heldout": measure_codec(codec, splits[1], clips)}
    from magnet_plugin import MAGNeT
    from magnet_plugin.metrics.report import judge
    from magnet_plugin.models.auxiliary import AutoregressiveModel
    model: tp.Any = AutoregressiveModel.load(folder) if kind == "musicgen" else MAGNeT.get_pretrained(str(folder))
    sizes = model.lm.cfg.transformer_lm
    figures |= {"parameters": parameters(model.lm), "dim": sizes.dim, "layers": sizes.num_layers, "heads": sizes.num_heads,
                "longest_clip_in_seconds": model.duration}
    if kind != "musicgen":
        figures["span_len"] = model.lm.span_len
    return {"model": figures, "heldout": judge(model, *splits, clips=clips or 96, seed=seed),
            "validation": {"uniform": math.log(codec.cardinality), **loss_figures(run.history)}}


def parameters(model: tp.Any) -> int:
    """Number of trained values."""
    return sum(value.numel() for value in model.parameters())


def build(kind: str, source: str, after: tp.Sequence[str], out: Path, *, data: tp.Optional[str] = None,
          clips: tp.Optional[int] = None, seed: int = 0, notes: tp.Sequence[str] = (), command: tp.Sequence[str] = ()
          ) -> dict[str, tp.Any]:
    """Export, measure, write the card, and put all in place; gives the card.

    Raises:
        ValueError: a run is not of this kind, the chain has gaps, or a file is too large to be bundled.
    """
    import magnet_plugin
    magnet_plugin.register()
    from magnet_plugin.models.checkpoints import export
    (run, cfg), *older = [read_run(name) for name in (source, *after)]
    if cfg.solver != RUNS_AS[kind]:
        raise ValueError(f"{source} is a run of solver={cfg.solver}, not of a {kind}")
    training = training_figures([run, *(pair[0] for pair in older)])
    splits = find_data(cfg, data)
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="_", dir=out.parent) as name:
        folder = Path(name).resolve()
        export(source_name(source), folder, half=True)
        files = {path.name: path.stat().st_size for path in sorted(folder.glob("*.bin"))}
        large = [f"{file} has {size} bytes, at most {MOST_BYTES[file]}" for file, size in files.items()
                 if size > MOST_BYTES[file]]
        if large:
            raise ValueError("too large to be bundled: " + "; ".join(large))
        mark = splits[1].parent.parent / "folk.json"
        card = {"name": NAMES[kind], "about": [*ABOUT[kind], *notes], **measure(kind, folder, run, splits, clips, seed),
                "training": training, "data": read_json(mark)["arguments"] if mark.exists() else str(splits[1]),
                "made_with": {"command": shlex.join(command), **made_with(BUNDLED.parent, PACKAGES)},
                "files": files, "licence": LICENCE}
        write_card(folder, card)
        out.mkdir(exist_ok=True)
        for path in folder.iterdir():
            path.replace(out / path.name)
    return card


def main(arguments: tp.Optional[tp.Sequence[str]] = None) -> int:
    """The command line."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    own, overrides = (given[:given.index("--")], given[given.index("--") + 1:]) if "--" in given else (given, [])
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kind", choices=sorted(SOLVERS))
    start = parser.add_mutually_exclusive_group(required=True)
    start.add_argument("--from", dest="source", help="Dora signature or checkpoint of a trained model")
    start.add_argument("--train", action="store_true", help="train first, with the overrides that follow --")
    parser.add_argument("--after", action="append", default=[], help="a run that it was continued from, if any")
    parser.add_argument("--clips", type=int, help="held-out clips to measure on (codec: all, others: 96)")
    parser.add_argument("--data", help="folder of the folk set, where it is not the run's own")
    parser.add_argument("--out", type=Path, help="release folder (the bundled model's own)")
    parser.add_argument("--seed", type=int, default=0, help="of the generated clips")
    parser.add_argument("--note", action="append", default=[], help="a sentence for the card, on what no figure tells")
    args = parser.parse_args(own)
    if overrides and not args.train:
        parser.error("overrides after -- are for --train")
    try:
        source = args.source or train(args.kind, overrides)
        card = build(args.kind, source, args.after, args.out or BUNDLED / NAMES[args.kind], data=args.data,
                     clips=args.clips, seed=args.seed, notes=args.note,
                     command=["python", "-m", "tools.zoo", *given])
    except (ValueError, ImportError, subprocess.CalledProcessError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    for name, value in card["heldout"].items():
        print(f"{name:32} {value:.4g}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
