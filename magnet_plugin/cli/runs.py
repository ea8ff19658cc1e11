"""`magnet runs`: the training runs of this machine, by name."""
from __future__ import annotations

import argparse
import shlex
import typing as tp
from pathlib import Path

if tp.TYPE_CHECKING:
    from ..sweeps.runs import Run


def add_parser(commands: tp.Any, common: argparse.ArgumentParser) -> None:
    """Add `magnet runs`."""
    one = commands.add_parser("runs", parents=[common], help="list training runs by name, and how to continue them",
                              description="List the runs in Dora's folder, the latest first: name (label=NAME of `dora "
                                          "run`, otherwise the signature), state, epochs, losses of the last epoch in nats "
                                          "per token, and age; below each the command that continues or exports it.")
    one.add_argument("name", nargs="*", metavar="NAME", help="list only the runs with these names or signatures")
    one.add_argument("--dir", type=Path, metavar="DIR", help="Dora's folder (default: AUDIOCRAFT_DORA_DIR, otherwise "
                                                             "~/audiocraft_runs)")
    one.add_argument("--json", action="store_true", help="print the runs as JSON")
    one.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print the runs."""
    from .. import environment
    from ..sweeps import runs
    folder = args.dir or environment.dora_dir()
    if args.dir is not None and not args.dir.is_dir():
        raise ValueError(f"--dir {args.dir} is not a folder; give the folder that holds xps/")
    found = runs.find_runs(folder)
    if args.name:
        for name in args.name:
            if not any(name in (one.name, one.signature) for one in found):
                runs.find_run(name, folder)                 # Its error lists the names that exist.
        found = [one for one in found if one.name in args.name or one.signature in args.name]
    if args.json:
        print(runs.as_json(found))
    elif found:
        print("\n".join(table(found)))
    else:
        print(f"No runs in {folder}. Start one: dora run solver=magnet/finetune_cpu datasource.scan=FOLDER label=NAME")
    return 0


def table(found: tp.Sequence[Run]) -> list[str]:
    """Format the runs, two lines each."""
    from ..sweeps.records import format_duration
    width = max(4, *(len(one.name) for one in found))
    solvers = max(6, *(len(one.solver) for one in found))
    lines = [f"{'name':<{width}}  {'signature':<9}  {'solver':<{solvers}}  {'state':<11}  {'epoch':>7}  {'train':>6}  "
             f"{'valid':>6}  {'age':>5}"]
    for one in found:
        losses = [f"{one.losses[stage]:.3f}" if stage in one.losses else "-" for stage in ("train", "valid")]
        age = "-" if one.idle is None else format_duration(one.idle)
        epoch = f"{one.epoch}/{one.epochs or '?'}"
        lines.append(f"{one.name:<{width}}  {one.signature:<9}  {one.solver:<{solvers}}  {one.state:<11}  {epoch:>7}  "
                     f"{losses[0]:>6}  {losses[1]:>6}  {age:>5}")
        lines.append(f"    {next_command(one)}")
        if one.note:
            lines.append(f"    ({one.note})")
    return lines


def next_command(one: Run) -> str:
    """Return the command that comes next for a run."""
    if one.state == "finished" and one.epochs:
        return f"magnet export {shlex.quote(one.name)} --out {shlex.quote(one.name.replace('/', '-'))}"
    return one.command
