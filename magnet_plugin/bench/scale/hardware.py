"""GPUs and what connects them: the makers' figures, each with its source, and what is assumed where there is no figure."""
from __future__ import annotations

import dataclasses

GB, T = 10 ** 9, 10 ** 12
NODE = 8                # GPUs of a node
HALVES = ("bfloat16", "float16")
PRECISIONS = (*HALVES, "float32")


@dataclasses.dataclass(frozen=True)
class GPU:
    """One GPU in a node of eight. Bandwidths are those of one direction.

    Attributes:
        half: FLOP/s of dense matrix products in float16, and in bfloat16 where there is such.
        convolution: FLOP/s of convolutions on float32 tensors: cuDNN takes TF32 where there is such (torch's default).
        float32: FLOP/s of matrix products in float32; torch takes no TF32 unless told to.
        memory: bytes, a GB being 10^9 of them.
        bandwidth: bytes/s of that memory.
        inside: bytes/s from one GPU to the others of its node (NVLink).
        outside: bytes/s from one GPU to other nodes: the node's network cards, shared by its eight GPUs.
        bfloat16: whether its tensor cores know bfloat16.
        flash: whether the flash kernels run, which skip what lies outside of the band (compute capability 8.0).
        source: where the figures stand.
    """
    half: float
    convolution: float
    float32: float
    memory: float
    bandwidth: float
    inside: float
    outside: float
    source: str
    bfloat16: bool = True
    flash: bool = True


GPUS = {
    "H200": GPU(989.5 * T, 494.5 * T, 67 * T, 141 * GB, 4800 * GB, 450 * GB, 50 * GB,
                "NVIDIA H200 datasheet (SXM; dense: half of what it gives with sparsity); DGX H200 datasheet: 8 x 400 Gb/s"),
    "H100": GPU(989.5 * T, 494.5 * T, 67 * T, 80 * GB, 3350 * GB, 450 * GB, 50 * GB,
                "NVIDIA H100 datasheet (SXM; dense: half of what it gives with sparsity); DGX H100 datasheet: 8 x 400 Gb/s"),
    "A100-80": GPU(312 * T, 156 * T, 19.5 * T, 80 * GB, 2039 * GB, 300 * GB, 25 * GB,
                   "NVIDIA A100 datasheet (SXM, 80 GB); DGX A100 datasheet: 8 x 200 Gb/s"),
    "A100-40": GPU(312 * T, 156 * T, 19.5 * T, 40 * GB, 1555 * GB, 300 * GB, 25 * GB,
                   "NVIDIA A100 datasheet (SXM, 40 GB); DGX A100 datasheet: 8 x 200 Gb/s"),
    "V100-32": GPU(125 * T, 15.7 * T, 15.7 * T, 32 * GB, 900 * GB, 150 * GB, 6.25 * GB,
                   "NVIDIA V100 datasheet (SXM2, 32 GB); DGX-1 (V100) datasheet: 4 x 100 Gb/s", False, False),
}


@dataclasses.dataclass(frozen=True)
class Assumptions:
    """What no datasheet says and no machine at hand could measure. Every figure of time hangs on them.

    Attributes:
        efficiency: share of the peak that matrix products reach. With it and the traffic of the other operations, the
            medium model on A100 comes out near the 44 % of peak that Megatron-LM tells of 1.7 B (arXiv 2104.04473).
        bandwidth: share of the memory's bandwidth that operations which only read and write reach.
        link: share of a link's bandwidth that NCCL's collectives reach.
        launch: seconds in which Python and torch bring one kernel under way.
        recurrence: seconds per frame and layer of the codec's LSTM, whose frames cannot be computed side by side.
        reserve: share of the memory that is left to CUDA, NCCL and gaps between tensors.
        text_tokens: length that captions are padded to.
    """
    efficiency: float = 0.6
    bandwidth: float = 0.8
    link: float = 0.8
    launch: float = 7e-6
    recurrence: float = 5e-6
    reserve: float = 0.1
    text_tokens: int = 64

    def __post_init__(self) -> None:
        for name in ("efficiency", "bandwidth", "link"):
            if not 0 < getattr(self, name) <= 1:
                raise ValueError(f"--{name} {getattr(self, name)} is a share of the peak: choose one above 0, at most 1")


def get_gpu(name: str, precision: str) -> GPU:
    """A GPU by name.

    Raises:
        ValueError: there is no such GPU or precision, or the GPU does not have it.
    """
    if name not in GPUS:
        raise ValueError(f"--gpu {name}: choose one of {', '.join(GPUS)}")
    if precision not in PRECISIONS:
        raise ValueError(f"--precision {precision}: choose one of {', '.join(PRECISIONS)}")
    if precision == "bfloat16" and not GPUS[name].bfloat16:
        raise ValueError(f"--precision bfloat16: {name} has no bfloat16 matrix products; set --precision float16, or "
                         "float32 with FSDP")
    return GPUS[name]


# NCCL's own model of latency, src/graph/tuning.cc (2.28), microseconds with the LL128 protocol: base, a step by NVLink, a
# step by the network.
_TREE, _RING = (14.0, 1.25, 8.5), (14.0, 1.9, 4.0)


def nodes_of(ranks: int) -> tuple[int, int]:
    """How many nodes, and GPUs in each.

    Raises:
        ValueError: the ranks fill no whole nodes.
    """
    if ranks < 1 or (ranks > NODE and ranks % NODE):
        raise ValueError(f"--gpus {ranks}: choose 1 to {NODE}, or whole nodes of {NODE}")
    return (ranks // NODE, NODE) if ranks > NODE else (1, ranks)


@dataclasses.dataclass(frozen=True)
class Traffic:
    """What one rank sends in a collective: bytes to GPUs of its node, bytes to other nodes, and seconds of latency."""
    inside: float = 0.0
    outside: float = 0.0
    latency: float = 0.0

    def __add__(self, other: Traffic) -> Traffic:
        return Traffic(self.inside + other.inside, self.outside + other.outside, self.latency + other.latency)

    @property
    def bytes(self) -> float:
        return self.inside + self.outside

    def seconds(self, gpu: GPU, share: float) -> float:
        """How long it takes, on `share` of the links' bandwidth."""
        return self.latency + self.inside / (share * gpu.inside) + self.outside / (share * gpu.outside)


def gather(size: float, ranks: int) -> Traffic:
    """All-gather of `size` bytes in all, or reduce-scatter: a rank sends (N-1)/N of them. The part that leaves the node
    is gathered between equal places of the nodes, and then within them."""
    nodes, local = nodes_of(ranks)
    if ranks == 1:
        return Traffic()
    base, near, far = _RING
    latency = (base + near * (ranks - nodes) + far * (nodes - 1)) * 1e-6
    return Traffic((local - 1) / local * size, (nodes - 1) / nodes * size / local, latency)


def all_reduce(size: float, ranks: int) -> Traffic:
    """All-reduce of `size` bytes: a rank sends 2(N-1)/N of them, as in reduce-scatter and all-gather; latency of a tree."""
    nodes, local = nodes_of(ranks)
    if ranks == 1:
        return Traffic()
    base, near, far = _TREE
    steps = 2 * (near * (local - 1) + far * (nodes - 1).bit_length())
    half = gather(size, ranks)
    return Traffic(2 * half.inside, 2 * half.outside, (base + steps) * 1e-6)
