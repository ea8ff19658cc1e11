"""Every frame has a positional embedding of its own, whatever the dtype of the weights."""
import typing as tp

import pytest
import torch

from magnet_plugin.engine.engines import engine_for
from magnet_plugin.engine.forward import Engine
from magnet_plugin.modules.hybrid_layout import Layout

from ..helpers.small_models import HybridMagnetLMModel, K, MagnetLMModel, build

STAGE = 1


def plain_pass(model: tp.Any, tokens: torch.Tensor) -> torch.Tensor:
    model.stage_logits(tokens, {}, STAGE)
    return torch.arange(tokens.shape[-1])


def hybrid_pass(model: tp.Any, tokens: torch.Tensor) -> torch.Tensor:
    layout = Layout.single(9, 1, tokens.shape[-1], K)
    model.joint_logits(tokens, {}, STAGE, layout)
    return layout.positions[0]


def engine_pass(model: tp.Any, tokens: torch.Tensor) -> torch.Tensor:
    session = engine_for(model, "model", model.emb[0].weight.dtype).session(None)
    session(tokens, STAGE, torch.zeros(1, 1, dtype=torch.long), False)
    return torch.arange(tokens.shape[-1])


PASSES = {"plain": (MagnetLMModel, plain_pass), "hybrid": (HybridMagnetLMModel, hybrid_pass),
          "engine": (MagnetLMModel, engine_pass)}


@pytest.fixture
def layer_inputs(monkeypatch: pytest.MonkeyPatch) -> list[torch.Tensor]:
    """What the only layer of a model receives."""
    seen: list[torch.Tensor] = []
    original = Engine._add_norm

    def recorded(engine: Engine, x: torch.Tensor, delta: tp.Any, *rest: tp.Any) -> torch.Tensor:
        if delta is None:                   # the first norm of the first layer
            seen.append(x.clone())
        return original(engine, x, delta, *rest)

    monkeypatch.setattr(Engine, "_add_norm", recorded)
    return seen


@pytest.mark.parametrize("dtype", (torch.float32, torch.float16, torch.bfloat16), ids=("float32", "float16", "bfloat16"))
@pytest.mark.parametrize("kind", PASSES)
@torch.no_grad()
def test_frames_with_equal_tokens_differ_in_their_positions(kind: str, dtype: torch.dtype, layer_inputs: list) -> None:
    """With 16-bit weights, as FSDP's `param_dtype` and published models on a GPU have them. The engine keeps float32."""
    klass, run = PASSES[kind]
    model = build(klass, num_layers=1, conditioned=False).to(dtype)
    for table in model.emb:
        table.weight[:] = table.weight[0].clone()       # Then only positions distinguish frames.
    model.transformer.layers[0].register_forward_pre_hook(lambda layer, inputs: layer_inputs.append(inputs[0]))
    for length in (500, 1500):
        layer_inputs.clear()
        positions = run(model, torch.zeros(1, K, length, dtype=torch.long))
        [x] = layer_inputs
        assert x.dtype == (torch.float32 if kind == "engine" else dtype) and x.shape[1] == len(positions)
        assert len(x[0].unique(dim=0)) == len(positions.unique()) >= length


@torch.no_grad()
def test_positions_are_added_before_rounding() -> None:
    """The input of the first layer is the exact sum of embeddings and positions, rounded once."""
    model = build(MagnetLMModel, num_layers=1, conditioned=False).bfloat16()
    tokens = torch.randint(0, 40, (1, K, 300), generator=torch.Generator().manual_seed(0))
    seen: list[torch.Tensor] = []
    model.transformer.layers[0].register_forward_pre_hook(lambda layer, inputs: seen.append(inputs[0]))
    model.stage_logits(tokens, {}, STAGE)
    model.float()
    embedded = sum(table(tokens[:, k]) for k, table in enumerate(model.emb))
    time, rate = torch.arange(300.)[:, None], 10_000 ** (torch.arange(32.) / 31)
    expected = embedded + torch.cat([torch.cos(time / rate), torch.sin(time / rate)], dim=-1)
    torch.testing.assert_close(seen[0].float(), expected, rtol=2 ** -8, atol=1e-5)
