"""The `magnet grid-report` command: a grid's table and pictures from what Dora keeps. It submits nothing."""
from __future__ import annotations

import argparse
import datetime
import shlex
import sys
import typing as tp
from pathlib import Path

from ..sweeps.records import Job


def add_parser(commands: tp.Any, common: argparse.ArgumentParser) -> None:
    """`grid-report` and its arguments."""
    one = commands.add_parser("grid-report", parents=[common], help="table and pictures of a grid's jobs so far",
                              description="Writes NAME.md, NAME.csv and pictures of a grid from what Dora keeps of its "
                              "jobs. It needs no SLURM and submits nothing.")
    one.add_argument("name", metavar="NAME", help="as dora grid takes it: magnet.ablate_span")
    one.add_argument("--out", type=Path, default=Path("reports"), metavar="DIR", help="folder to write (reports)")
    one.add_argument("--csv", action="store_true", help="print the table as CSV as well; file names go to stderr then")
    one.add_argument("--no-plots", action="store_true", help="write the tables alone")
    one.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Read, write, and name the files."""
    from ..sweeps import jobs, plot, table
    jobs.check_name(args.name)
    from ..train import main
    found = jobs.find_jobs(main, args.name)
    rows = table.Table.of(args.name, found.jobs)
    args.out.mkdir(parents=True, exist_ok=True)
    pictures: list[tuple[str, str]] = []
    if not args.no_plots:
        try:
            pictures = plot.draw(rows, args.out)
        except ImportError as error:
            print(error, file=sys.stderr)
    text = table.text_csv(rows)
    (args.out / f"{args.name}.csv").write_text(text, encoding="utf-8")
    (args.out / f"{args.name}.md").write_text(table.document(rows, header(rows), found.notes, pictures), encoding="utf-8")
    for file in (f"{args.name}.md", f"{args.name}.csv", *(file for _, file in pictures)):
        print(args.out / file, file=sys.stderr if args.csv else sys.stdout)
    for note in found.notes:
        print(note, file=sys.stderr)
    if args.csv:
        print(text, end="")
    return 0


def header(rows: tp.Any) -> list[str]:
    """What a report says of itself and of the whole grid."""
    counts = ", ".join(f"{rows.count(status)} {word}" for status, word in (
        ("finished", "finished"), ("half", "half done"), ("missing", "missing"), ("broken", "broken")))
    return [f"`{shlex.join(['magnet', *sys.argv[1:]])}`, {datetime.datetime.now().astimezone():%Y-%m-%d %H:%M %Z}",
            f"{len(rows.jobs)} jobs: {counts}", *made_by(rows.jobs)]


def made_by(jobs: tp.Sequence[Job]) -> list[str]:
    """Commits and machines of the jobs that noted them."""
    def all_of(tell: tp.Callable[[dict], tp.Optional[str]]) -> str:
        return "; ".join(dict.fromkeys(text for job in jobs if job.machine for text in [tell(job.machine)] if text))

    commits = all_of(lambda made: made.get("commit") and made["commit"][:10]
                     + (" with uncommitted changes" if made.get("uncommitted_changes") else ""))
    places = all_of(lambda made: made.get("measured_on") and f"{made['measured_on']}, {made.get('cores')} CPU cores in all")
    versions = all_of(lambda made: ", ".join(f"{name} {made[name]}" for name in ("python", "torch", "audiocraft")
                                             if made.get(name)))
    return [f"{what}: {text or 'not known'}" for what, text in (("commit", commits), ("run on", places),
                                                                ("versions", versions))]
