"""Linear layers in float8: their numbers by an imitation on a CPU, their operators on CUDA tensors without data."""
import typing as tp

import pytest
import torch
from torch.nn import functional as F

from magnet_plugin.engine import float8, kernels, triton_layers, triton_products
from magnet_plugin.engine.forward import Engine
from magnet_plugin.engine.linear import LinearWeights, prepare_linear
from magnet_plugin.engine.weights import read_weights

from ..helpers.fake_cuda import Launches, fake_cuda
from ..helpers.guided_logits import guided_logits, relative_error
from ..helpers.small_models import K, MagnetLMModel, build
from ..helpers.triton_kernels import recorded


@pytest.fixture
def imitated(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have CPUs multiply float8 with a scale for each row and column: torch's operator only has one scale there."""
    def scaled_mm(a: torch.Tensor, b: torch.Tensor, scale_a: torch.Tensor, scale_b: torch.Tensor,
                  bias: tp.Optional[torch.Tensor], out_dtype: torch.dtype, use_fast_accum: bool) -> torch.Tensor:
        assert a.dtype == b.dtype == torch.float8_e4m3fn and a.is_contiguous() and b.t().is_contiguous()
        assert scale_a.shape == (a.shape[0], 1) and scale_b.shape == (1, b.shape[1])
        assert scale_a.dtype == scale_b.dtype == torch.float32 and out_dtype == torch.bfloat16
        product = (a.float() * scale_a) @ (b.float() * scale_b)
        return (product if bias is None else product + bias.float()).to(out_dtype)

    monkeypatch.setattr(torch, "_scaled_mm", scaled_mm)
    monkeypatch.setattr(float8, "find_problem", lambda device: None)


@pytest.mark.usefixtures("imitated")
@pytest.mark.parametrize("activation, function", [("none", lambda x: x), ("gelu", F.gelu)])
def test_rows_and_outputs_of_any_size_are_close_to_float32(activation: str, function: tp.Any) -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, 5, 256, generator=generator)
    weight, bias = torch.randn(64, 256, generator=generator) / 16, torch.randn(64, generator=generator)
    x[0, 3], x[1, 1] = 0, x[1, 1] * 1e7         # Of one scale for all, little would be left of the other rows ...
    weight[7] *= 1e7                            # ... and outputs.
    found = prepare_linear(LinearWeights(weight, bias), "float8", torch.float32, activation)(x)
    expected = function(F.linear(x, weight, bias))
    assert found.dtype == torch.bfloat16 and found.shape == expected.shape
    size = x.norm(dim=-1, keepdim=True) * weight.norm(dim=-1) / 16 + bias.abs()
    error = (found.float() - expected).abs() / size
    assert error.max() < 0.5 and 0.005 < error[size > 0].square().mean().sqrt() < 0.06


@pytest.mark.usefixtures("imitated")
def test_logits_are_similar_to_those_of_float32() -> None:
    model = build(MagnetLMModel)
    found, exact = guided_logits(model, engine="lean", precision="float8"), guided_logits(model, engine="plain")
    assert 1e-3 < relative_error(found[::6], exact[::6]) < 0.1      # At guidance scale 1.


def test_other_devices_are_refused_with_a_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="float8 requires an NVIDIA GPU, and the model is on cpu; set precision=int8$"):
        guided_logits(build(MagnetLMModel), precision="float8")
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "NVIDIA A100")
    for capability, supported in (((8, 0), False), ((8, 9), True), ((9, 0), True)):
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device, found=capability: found)
        problem = float8.find_problem(torch.device("cuda"))
        assert supported == (problem is None)
        assert problem is None or "NVIDIA A100 has 8.0; set precision=bfloat16" in problem


@pytest.mark.usefixtures("imitated")
def test_sizes_that_gpus_do_not_multiply_are_refused() -> None:
    with pytest.raises(ValueError, match=r"multiples of 16, got 24 to 48 channels; set precision=bfloat16"):
        prepare_linear(LinearWeights(torch.zeros(48, 24)), "float8", torch.float32)


@pytest.mark.parametrize("with_triton", [True, False])
@pytest.mark.parametrize("branches", ["conditional", "both"])
def test_operators_on_cuda(branches: str, with_triton: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """All products but those of queries for the text and of the head are of float8, of inputs that one kernel quantises."""
    monkeypatch.setattr(kernels, "available", lambda device: with_triton)
    monkeypatch.setattr(float8, "find_problem", lambda device: None)
    with fake_cuda(), torch.device("cuda"), \
            recorded(triton_layers, "add_norm_kernel", "embed_kernel", "quantise_kernel") as parts, \
            recorded(triton_products, "text_attention_kernel") as texts:
        model = build(MagnetLMModel, bias_ff=True, device="cuda")
        engine = Engine(read_weights(model), model.context, "float8")
        session = engine.session(torch.zeros(4, 5, model.dim))
        tokens = torch.zeros(2, K, 32, dtype=torch.long)
        parts.clear()
        with Launches() as launches:
            logits = session.logits(tokens, 0, branches == "both")
    assert logits.dtype == torch.float32 and logits.shape == (4 if branches == "both" else 2, 32, model.card)
    count = len(engine.layers)
    assert launches.kernels["_scaled_mm"] == 5 * count and not launches.synchronizing
    assert launches.kernels["mm"] == 1 + (0 if with_triton else count)
    assert len(texts) == with_triton * count
    assert [launch.name for launch in parts].count("quantise_kernel") == with_triton * 5 * count
