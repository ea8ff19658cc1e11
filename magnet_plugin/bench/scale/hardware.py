"""GPUs and the links between them: the makers' figures with their sources, and assumptions where there are none."""
from __future__ import annotations

import typing as tp
from dataclasses import dataclass

GB, T = 10 ** 9, 10 ** 12
NODE = 8                    # GPUs of a node
HALVES = ("bfloat16", "float16")
PRECISIONS = (*HALVES, "float32")
# Microseconds of NCCL's latency model with the LL128 protocol, src/graph/tuning.cc (2.28): base, per NVLink step, per
# network step.
_TREE, _RING = (14.0, 1.25, 8.5), (14.0, 1.9, 4.0)


@dataclass(frozen=True)
class GPU:
    """One GPU in a node of eight; bandwidths of links are those of one direction."""
    half: float             # FLOP/s of dense matrix products in float16 and bfloat16; TF32 reaches half of it
    float32: float          # FLOP/s of matrix products in float32, without TF32, torch's default
    memory: float           # bytes; a GB is 10^9 bytes
    bandwidth: float        # bytes/s of that memory
    inside: float           # bytes/s to the other GPUs of the node (NVLink)
    outside: float          # bytes/s to other nodes: its eighth of the node's network cards
    source: str


_H100 = "(SXM; dense: half of the figure with sparsity)"
GPUS = {
    "H200": GPU(989.5 * T, 67 * T, 141 * GB, 4800 * GB, 450 * GB, 50 * GB,
                f"NVIDIA H200 datasheet {_H100}; DGX H200 datasheet: 8 x 400 Gb/s"),
    "H100": GPU(989.5 * T, 67 * T, 80 * GB, 3350 * GB, 450 * GB, 50 * GB,
                f"NVIDIA H100 datasheet {_H100}; DGX H100 datasheet: 8 x 400 Gb/s"),
    "A100-80": GPU(312 * T, 19.5 * T, 80 * GB, 2039 * GB, 300 * GB, 25 * GB,
                   "NVIDIA A100 datasheet (SXM, 80 GB); DGX A100 datasheet: 8 x 200 Gb/s"),
    "A100-40": GPU(312 * T, 19.5 * T, 40 * GB, 1555 * GB, 300 * GB, 25 * GB,
                   "NVIDIA A100 datasheet (SXM, 40 GB); DGX A100 datasheet: 8 x 200 Gb/s"),
}


@dataclass(frozen=True)
class Assumptions:
    """What no datasheet states; all times depend on it.

    With these values the medium model on A100 comes near the 44 % of peak that Megatron-LM reports for 1.7 B parameters
    (arXiv 2104.04473).
    """
    efficiency: float = 0.6     # share of the peak FLOP/s that matrix products reach
    bandwidth: float = 0.8      # share of the memory bandwidth that all other operations reach
    link: float = 0.8           # share of the links' bandwidth that NCCL reaches
    recurrence: float = 5e-6    # seconds per frame and layer of the codec's LSTM, which is sequential
    reserve: float = 0.1        # share of the memory for CUDA, NCCL and fragmentation
    text_tokens: int = 64       # length that captions are padded to; `recipes.TEXTS` are for 64

    def __post_init__(self) -> None:
        if not 0 < self.efficiency <= 1:
            raise ValueError(f"--efficiency {self.efficiency} is a share of the peak: choose one above 0, at most 1")


def nodes_of(ranks: int) -> tuple[int, int]:
    """Return the number of nodes, and of GPUs in each.

    Raises:
        ValueError: if `ranks` is more than a node and no multiple of one.
    """
    if ranks < 1 or (ranks > NODE and ranks % NODE):
        raise ValueError(f"--gpus {ranks}: choose 1 to {NODE}, or a multiple of {NODE} (whole nodes)")
    return (ranks // NODE, NODE) if ranks > NODE else (1, ranks)


class Traffic(tp.NamedTuple):
    """What one rank sends."""
    inside: float = 0.0         # bytes to GPUs of its node
    outside: float = 0.0        # bytes to other nodes
    latency: float = 0.0        # seconds

    @property
    def bytes(self) -> float:
        return self.inside + self.outside

    def seconds(self, gpu: GPU, share: float) -> float:
        """Return the duration at `share` of the links' bandwidth."""
        return self.latency + self.inside / (share * gpu.inside) + self.outside / (share * gpu.outside)


def gather(size: float, ranks: int, calls: int = 1) -> Traffic:
    """All-gather or reduce-scatter of `size` bytes: a rank sends (N-1)/N of them, first between nodes, then within."""
    nodes, local = nodes_of(ranks)
    base, near, far = _RING
    latency = 1e-6 * calls * (base + near * (ranks - nodes) + far * (nodes - 1))
    return Traffic((local - 1) / local * size, (nodes - 1) / nodes * size / local, latency) if ranks > 1 else Traffic()


def all_reduce(size: float, ranks: int, calls: int = 1) -> Traffic:
    """All-reduce of `size` bytes: a rank sends 2(N-1)/N of them, with the latency of a tree."""
    nodes, local = nodes_of(ranks)
    base, near, far = _TREE
    latency = 1e-6 * calls * (base + 2 * (near * (local - 1) + far * (nodes - 1).bit_length()))
    half = gather(size, ranks)
    return Traffic(2 * half.inside, 2 * half.outside, latency) if ranks > 1 else Traffic()
