"""Elementwise layers as Triton kernels: equal to those of PyTorch. On CPU tensors they run in Triton's interpreter."""
import contextlib
import typing as tp

import pytest
import torch

from magnet_plugin.engine import layers, triton_layers

from ..helpers.triton_kernels import Launch, compiled, interpreted, recorded

DTYPES = [torch.float32, torch.float16, torch.bfloat16]
TOLERANCE = {torch.float32: 2e-6, torch.float16: 1e-3, torch.bfloat16: 8e-3}


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def device(request: pytest.FixtureRequest) -> tp.Iterator[str]:
    with interpreted() if request.param == "cpu" else contextlib.nullcontext():
        yield request.param


def random(*shape: int, dtype: torch.dtype = torch.float32, device: str, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(device, dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("rows, delta_rows, constant_rows, normed_rows", [
    (2, 2, 0, None), (2, 0, 0, None), (4, 2, 2, None), (4, 4, 2, 2), (3, 0, 1, 1), (3, 3, 0, 3)])
@pytest.mark.parametrize("width", [24, 64])
def test_the_residual_sum_and_its_norm(dtype: torch.dtype, rows: int, delta_rows: int, constant_rows: int,
                                       normed_rows: tp.Optional[int], width: int, device: str) -> None:
    x = 2 + 3 * random(rows, 3, width, device=device)
    delta = random(delta_rows, 3, width, dtype=dtype, device=device, seed=1) if delta_rows else None
    constant = random(constant_rows, 1, width, dtype=dtype, device=device, seed=2) if constant_rows else None
    weight, bias = random(width, device=device, seed=3), random(width, device=device, seed=4)
    expected, given = x.clone(), x.clone()
    wanted = layers.add_norm(expected, delta, weight, bias, 1e-5, dtype, constant, normed_rows)
    result = triton_layers.add_norm(given, delta, weight, bias, 1e-5, dtype, constant, normed_rows)
    assert result.dtype == dtype and len(result) == (normed_rows or rows)
    torch.testing.assert_close(given, expected, rtol=0, atol=1e-6)
    torch.testing.assert_close(result, wanted, rtol=TOLERANCE[dtype], atol=TOLERANCE[dtype])


def test_the_norm_does_not_lose_precision_far_from_zero(device: str) -> None:
    x = 1000 + random(1, 2, 128, device=device)
    weight, bias = torch.ones(128, device=device), torch.zeros(128, device=device)
    wanted = torch.nn.functional.layer_norm(x.double(), (128,), eps=1e-5)
    result = triton_layers.add_norm(x, None, weight, bias, 1e-5, torch.float32)
    torch.testing.assert_close(result.double(), wanted, rtol=0, atol=1e-3)


@pytest.mark.parametrize("dtype", DTYPES)
def test_embeddings_are_summed_in_float32(dtype: torch.dtype, device: str) -> None:
    tokens = torch.randint(0, 9, (2, 5, 4), generator=torch.Generator().manual_seed(0)).to(device).transpose(1, 2)
    tables, positions = random(4, 9, 40, dtype=dtype, device=device), random(5, 40, device=device, seed=1)
    result = triton_layers.embed(tokens, tables, positions)
    assert result.dtype == torch.float32
    assert torch.equal(result, layers.embed(tokens, tables, positions))


@pytest.mark.parametrize("dtype", DTYPES)
def test_rows_are_quantised_to_float8(dtype: torch.dtype, device: str) -> None:
    x = random(5, 40, dtype=dtype, device=device)
    x[1], x[2] = 0, x[2] * 1000
    expected, scales = layers.quantise(x)
    found, found_scales = triton_layers.quantise(x)
    assert found.dtype == torch.float8_e4m3fn and torch.equal(found_scales, scales)
    assert torch.equal(found.float(), expected.float())
    torch.testing.assert_close(expected.float() * scales, x.float(), rtol=0.0625, atol=float(scales.max()) * 2 ** -10)


def test_strided_tensors_are_refused() -> None:
    with pytest.raises(ValueError, match="x must be contiguous, but its strides are"):
        x, ones = torch.zeros(2, 4, 4).transpose(0, 1), torch.ones(4)
        triton_layers.add_norm(x, None, ones, ones, 1e-5, torch.float32)


@pytest.mark.integ
@pytest.mark.parametrize("capability", [80, 90])
def test_layers_compile_without_spilling_registers(capability: int) -> None:
    tokens, tables = torch.zeros(2, 4, 8, dtype=torch.long), torch.zeros(4, 9, 2048, dtype=torch.float16)
    x, delta, scale = torch.zeros(2, 8, 2048), torch.zeros(2, 8, 2048, dtype=torch.float16), torch.zeros(2048)
    with recorded(triton_layers, "add_norm_kernel", "embed_kernel") as launches:
        triton_layers.add_norm(x, delta, scale, scale, 1e-5, torch.float16, delta[:1, :1].contiguous())
        triton_layers.embed(tokens, tables, torch.zeros(8, 2048))
    assert len(launches) == 2
    for launch in launches:
        assert_fits(launch, capability)


@pytest.mark.integ
@pytest.mark.parametrize("capability", [89, 90])
def test_quantisation_compiles_for_gpus_that_multiply_float8(capability: int) -> None:
    with recorded(triton_layers, "quantise_kernel") as launches:
        triton_layers.quantise(torch.zeros(8, 8192, dtype=torch.bfloat16))
    assert_fits(launches[0], capability)


def assert_fits(launch: Launch, capability: int) -> None:
    usage = compiled(launch, capability)
    print(f"sm_{capability} {launch.name}: {usage}")
    assert usage.spilled == 0 and usage.registers <= 128
