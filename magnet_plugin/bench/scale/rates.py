"""How fast a machine is at what an update consists of, and what the model of time makes of it, beside what was measured."""
from __future__ import annotations

import functools
import json
import statistics
import typing as tp
from pathlib import Path

import torch

from .. import peers
from ..measure import take_turns
from .checks import WORDS, shape_of
from .costs import FLOAT, Precision, Step, flops, kept, moved
from .estimate import CLIP, OPTIMIZERS
from .hardware import GPUS

REPEATS = 4
#: Rows of `magnet bench train` that the model of time knows: precision of products, checkpointing.
ROWS = {"plugin": ("float32", False), "plugin, accumulate=2": ("float32", False), "plugin, bfloat16": ("bfloat16", False),
        "plugin, checkpointing=torch": ("float32", True)}
#: GPUs by what torch calls them.
NAMES = {"H200": "H200", "H100": "H100", "A100-SXM4-80GB": "A100-80", "A100-SXM4-40GB": "A100-40",
         "V100-SXM2-32GB": "V100-32"}


def measure(size: peers.Size, batch: int, length: int, device: torch.device, rounds: int) -> dict[str, list[float]]:
    """Rates of the machine at an update's shapes, one per round.

    Returns:
        `float32`, `bfloat16`: FLOP/s of a layer's matrix products, forward and backward; `moved`: bytes/s read and written
        by a sum of two tensors of the residual stream's size.
    """
    tokens, dim = batch * length, size.dim
    shapes = [(3 * dim, dim), (dim, dim), (dim, dim), (dim, dim), (4 * dim, dim), (dim, 4 * dim)]

    def products(dtype: torch.dtype) -> tp.Callable[[], None]:
        sets = [(torch.randn(tokens, inputs, device=device).to(dtype), torch.randn(outputs, inputs, device=device).to(dtype),
                 torch.randn(tokens, outputs, device=device).to(dtype)) for outputs, inputs in shapes]

        def run() -> None:
            for _ in range(REPEATS):
                for x, weight, gradient in sets:
                    x @ weight.t(), gradient @ weight, gradient.t() @ x
        return run

    one, two = torch.randn(2, tokens, dim, device=device)
    out = torch.empty_like(one)

    def sums() -> None:
        for _ in range(10 * REPEATS):
            torch.add(one, two, out=out)

    work = {"float32": 6 * tokens * sum(a * b for a, b in shapes) * REPEATS}
    work |= {"bfloat16": work["float32"], "moved": 3 * FLOAT * tokens * dim * 10 * REPEATS}
    runs = {"float32": products(torch.float32), "bfloat16": products(torch.bfloat16), "moved": sums}
    found = take_turns(runs, rounds, device, lambda text: None)
    return {name: [work[name] / seconds for seconds in entry["seconds"]] for name, entry in found.items()}


class Row(tp.NamedTuple):
    """One update: seconds and MiB, measured and computed; memory where the record's is the device's."""
    case: str
    name: str
    measured: float
    computed: float
    measured_mib: tp.Optional[float]
    computed_mib: float
    share: tp.Optional[float]


def rows(record: dict[str, tp.Any], cuda: bool) -> list[Row]:
    """The updates of a record of `magnet bench train`, on CUDA or not, whose cases hold the machine's rates."""
    from ..train import STAGE
    found = []
    on = record["made_with"]["measured_on"] if cuda else ""
    known = next((GPUS[name] for part, name in NAMES.items() if part in on), None)
    for entry in (entry for entry in record["cases"] if "machine" in entry):
        case, rate = entry["case"], {name: statistics.median(values) for name, values in entry["machine"].items()}
        for name, (precision, checkpointing) in ROWS.items():
            if "seconds" not in entry["update"].get(name, {}):
                continue
            half = precision != "float32"
            shape = shape_of(peers.SIZES[case["size"]], case["length"], checkpointing)
            step = Step(case["batch"], WORDS, STAGE, "flash" if cuda and half else "blocked", apart=cuda)
            bytes_of, parameters = Precision(FLOAT, 2 if half else FLOAT), parameters_of(case["size"])
            work, traffic = sum(flops(shape, step)), sum(moved(shape, step, bytes_of)[:2])
            traffic += (OPTIMIZERS["adamw"].moved + CLIP) * parameters
            keeps, update = kept(shape, step, bytes_of), entry["update"][name]
            mib = max(keeps.first, FLOAT * parameters * (2 + OPTIMIZERS["adamw"].states)) / 2 ** 20
            seconds = statistics.median(update["seconds"])
            peak = known and (known.half if half else known.float32)
            found.append(Row(f"{case['size']}, batch {case['batch']}, {case['length']} frames", name, seconds,
                             work / rate[precision] + traffic / rate["moved"], update["peak_mib"] if cuda else None, mib,
                             work / seconds / peak if peak else None))
    return found


@functools.cache
def parameters_of(size: str) -> int:
    """Of a model of `peers.SIZES`."""
    from ...models.lm_magnet import MagnetLMModel
    with torch.device("meta"):
        model = peers.build(MagnetLMModel, peers.SIZES[size], 8, torch.device("meta"), torch.float32)
    return sum(p.numel() for p in model.parameters())


def records(folder: Path) -> list[tuple[str, dict[str, tp.Any]]]:
    """The records of `magnet bench train` in a folder, by file name."""
    return [(path.name, json.loads(path.read_text())) for path in sorted(folder.glob("train-*.json"))]
