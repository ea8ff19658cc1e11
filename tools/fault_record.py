"""The table of faults: what `make test-faults` tried, and what became of it."""
import dataclasses
import json
import time
import typing as tp
from pathlib import Path

from magnet_plugin import environment
from magnet_plugin.metrics.machine import made_with


@dataclasses.dataclass
class Row:
    """The rounds of one fault.

    Attributes:
        fault: what went wrong.
        tries: number of rounds.
        survived: those after which everything was as without the fault, bit for bit.
        repeated: number of updates that were trained a second time, over all rounds.
        seconds: of all rounds.
    """
    fault: str
    tries: int = 0
    survived: int = 0
    repeated: int = 0
    seconds: float = 0.0

    @property
    def lost(self) -> int:
        return self.tries - self.survived


def table(rows: tp.Sequence[Row]) -> str:
    """Format rows as a Markdown table."""
    lines = ["| fault | tries | survived | lost | updates trained again, per try |", "| --- | ---: | ---: | ---: | ---: |"]
    total = Row("**all**", sum(row.tries for row in rows), sum(row.survived for row in rows),
                sum(row.repeated for row in rows))
    return "\n".join(lines + [f"| {row.fault} | {row.tries} | {row.survived} | {row.lost} | "
                              f"{row.repeated / max(1, row.tries):.1f} |" for row in (*rows, total)])


def save(rows: tp.Sequence[Row], folder: Path) -> None:
    """Write `faults.json` and `faults.md`, replacing the rows of these faults and keeping the others."""
    path = folder / "faults.json"
    known = {row["fault"]: row for row in json.loads(path.read_text())["rows"]} if path.exists() else {}
    known |= {row.fault: dataclasses.asdict(row) for row in rows}
    merged = [Row(**row) for row in known.values()]
    facts = {"command": "make test-faults", "date": time.strftime("%Y-%m-%d"),
             **made_with(environment.PACKAGE.parent, ("magnet-plugin", "audiocraft", "torch"))}
    path.write_text(json.dumps({**facts, "rows": [dataclasses.asdict(row) for row in merged]}, indent=1) + "\n")
    write_page(path)


def write_page(path: Path) -> Path:
    """Write `faults.md` next to the record `faults.json`, and return its path."""
    facts = json.loads(path.read_text())
    rows = [Row(**row) for row in facts.pop("rows")]
    seconds = sum(row.seconds for row in rows)
    target = path.with_suffix(".md")
    target.write_text(f"""# Faults

Written by `make test-faults` on {facts['date']}; it took {seconds / 60:.0f} minutes. Each try trains a small model (three
epochs of seven updates, with validation, evaluation, generation, an optimizer, a schedule and an average of weights) in a
process of its own, which something happens to at a random moment, and starts it again. A try has survived if the second
process ends with the same weights, optimizer state, losses of every step and history, bit for bit, as a training that
nothing happened to, and leaves no other files.

{table(rows)}

Machine: {', '.join(f'{name} {value}' for name, value in facts.items() if name not in ('command', 'date'))}
""")
    return target
