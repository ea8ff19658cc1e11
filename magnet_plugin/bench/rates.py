"""Rates of a machine at the shapes of a training update: matrix products and memory."""
from __future__ import annotations

import typing as tp

import torch

from .measure import Run, measure_in_turn

REPEATS = 4             # in one measured call


def measure_rates(tokens: int, dim: int, device: torch.device, rounds: int) -> dict[str, list[float]]:
    """Measure the rates that bound an update.

    Args:
        tokens: rows of the products, clips times frames.
        dim: channels of the transformer.
        device: where to measure.
        rounds: number of measurements.
    Returns:
        One value per round: `float32`, `bfloat16`, FLOP/s of a layer's matrix products, forward and backward; `moved`,
        bytes/s read and written by adding two tensors [tokens, dim].
    """
    shapes = [(3 * dim, dim), (dim, dim), (dim, dim), (dim, dim), (4 * dim, dim), (dim, 4 * dim)]

    def products(dtype: torch.dtype) -> Run:
        sets = [(torch.randn(tokens, inputs, device=device).to(dtype), torch.randn(outputs, inputs, device=device).to(dtype),
                 torch.randn(tokens, outputs, device=device).to(dtype)) for outputs, inputs in shapes]

        def run() -> None:
            for _ in range(REPEATS):
                for x, weight, gradient in sets:
                    x @ weight.t(), gradient @ weight, gradient.t() @ x
        return run

    one, two = torch.randn(2, tokens, dim, device=device)
    out = torch.empty_like(one)

    def add() -> None:
        for _ in range(10 * REPEATS):
            torch.add(one, two, out=out)

    work: dict[str, tp.Any] = {"float32": 6 * tokens * sum(a * b for a, b in shapes) * REPEATS}
    work |= {"bfloat16": work["float32"], "moved": 3 * one.element_size() * tokens * dim * 10 * REPEATS}
    runs = {"float32": products(torch.float32), "bfloat16": products(torch.bfloat16), "moved": add}
    found = measure_in_turn(runs, rounds, device)
    return {name: [work[name] / seconds for seconds in entry["seconds"]] for name, entry in found.items()}
