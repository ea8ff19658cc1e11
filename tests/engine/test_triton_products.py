"""Matrix products as Triton kernels: equal to those of PyTorch. On CPU tensors they run in Triton's interpreter."""
import contextlib
import typing as tp

import pytest
import torch
from torch.nn import functional as F

from magnet_plugin.engine import layers, triton_products
from magnet_plugin.engine.linear import ACTIVATIONS

from ..helpers.triton_kernels import compiled, interpreted, recorded

DTYPES = [torch.float16, torch.bfloat16]
TOLERANCE = {torch.float16: 2e-3, torch.bfloat16: 1.6e-2}


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def device(request: pytest.FixtureRequest) -> tp.Iterator[str]:
    with interpreted() if request.param == "cpu" else contextlib.nullcontext():
        yield request.param


def random(*shape: int, dtype: torch.dtype, device: str, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(device, dtype)


def assert_close(found: torch.Tensor, expected: torch.Tensor, dtype: torch.dtype) -> None:
    assert found.dtype == dtype
    torch.testing.assert_close(found.double(), expected, rtol=TOLERANCE[dtype], atol=TOLERANCE[dtype])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("activation, rows, outputs, inputs", [
    ("none", 1, 64, 64), ("gelu", 70, 130, 24), ("relu", 3, 40, 200), ("gelu", 1200, 1300, 40)])
def test_linear_layers_with_their_activation(dtype: torch.dtype, activation: str, rows: int, outputs: int, inputs: int,
                                             device: str) -> None:
    x = random(1, rows, inputs, dtype=dtype, device=device)
    weight = random(outputs, inputs, dtype=dtype, device=device, seed=1) / inputs ** 0.5
    bias = None if rows == 3 else random(outputs, dtype=dtype, device=device, seed=2)
    expected = F.linear(x.double(), weight.double(), None if bias is None else bias.double())
    assert_close(triton_products.linear(x, weight, bias, activation), ACTIVATIONS[activation](expected), dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("length, texts, heads, head_dim", [(1, 64, 2, 32), (70, 7, 3, 24), (5, 150, 1, 64)])
@pytest.mark.parametrize("mask_rows", [0, 1, 2])
def test_attention_to_the_text(dtype: torch.dtype, length: int, texts: int, heads: int, head_dim: int, mask_rows: int,
                               device: str) -> None:
    x = random(2, length, heads * head_dim, dtype=dtype, device=device)
    weight = random(heads * head_dim, heads * head_dim, dtype=dtype, device=device, seed=1) / (heads * head_dim) ** 0.5
    bias = random(heads * head_dim, dtype=dtype, device=device, seed=2) if mask_rows else None
    keys, values = 2 * random(2, 2, heads, texts, head_dim, dtype=dtype, device=device, seed=3)
    mask = None
    if mask_rows:       # The first texts too, which fill a whole block of the longest.
        mask = torch.zeros(mask_rows, 1, 1, texts, device=device, dtype=dtype)
        mask[0, ..., :texts // 2] = float("-inf")
        mask[-1, ..., -1] = float("-inf")
    queries = F.linear(x.double(), weight.double(), None if bias is None else bias.double())
    expected = layers.text_attention(queries, keys.double(), values.double(), None if mask is None else mask.double())
    found = triton_products.text_attention(x, weight, bias, keys, values, mask)
    assert_close(found / 4, expected / 4, dtype)        # Queries are rounded too.


def test_strided_tensors_are_refused() -> None:
    x = torch.zeros(1, 64, 64)
    with pytest.raises(ValueError, match="weight must be contiguous, but its strides are"):
        triton_products.linear(x, x[0].t(), None, "none")
    with pytest.raises(ValueError, match="keys must be contiguous, but its strides are"):
        triton_products.text_attention(x, x[0], None, x[None].transpose(2, 3), x[None], None)


@pytest.mark.integ
@pytest.mark.parametrize("capability", [80, 90])
def test_products_compile_without_spilling_registers_for_the_shared_memory_of_small_gpus(capability: int) -> None:
    x, weight, bias = (torch.zeros(shape, dtype=torch.bfloat16) for shape in ((1, 1500, 1024), (4096, 1024), (4096,)))
    text = torch.zeros(1, 16, 64, 64, dtype=torch.bfloat16)
    with recorded(triton_products, "linear_kernel", "text_attention_kernel") as launches:
        triton_products.linear(x, weight, bias, "gelu")
        triton_products.linear(x[:, :100], weight, None, "relu")
        for frames in (1500, 1):
            triton_products.text_attention(x[:, :frames], weight[:1024], bias, text, text, text[:, :1, :1, 0])
    assert len(launches) == 4
    for launch in launches:
        usage = compiled(launch, capability)
        print(f"sm_{capability} {launch.name}: {usage}")
        assert usage.spilled == 0 and usage.registers <= 255 and usage.shared <= 99 * 1024
