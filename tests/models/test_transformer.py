"""The transformer layer whose attention has a context."""
import pytest
import torch
from torch._subclasses import FakeTensorMode

from magnet_plugin.models.transformer import ContextAttentionLayer
from magnet_plugin.modules.context import Band

from ..helpers.small_models import CARD, K, MagnetLMModel, build_scaled, conditions


@pytest.mark.parametrize("changes", [{}, {"positional_embedding": "rope"}, {"attention_as_float32": True}], ids=str)
def test_norms_of_queries_and_keys_may_return_float32(changes: dict[str, object]) -> None:
    """As under autocast on CUDA, which computes norms in float32; a CPU keeps them in bfloat16."""
    model = build_scaled(MagnetLMModel, qk_layer_norm=True, qk_layer_norm_cross=True, **changes)
    norms = [module for name, module in model.named_modules() if name.endswith(("q_layer_norm", "k_layer_norm"))]
    assert len(norms) == 2 * 2 * 2          # layers, self- and cross-attention, queries and keys
    for norm in norms:
        norm.register_forward_hook(lambda module, inputs, output: output.float())
    tensors = model.embed_conditions(conditions("a slow air"))
    tokens = torch.randint(0, CARD, (1, K, 60), generator=torch.Generator().manual_seed(0))
    for stage in (0, 1):
        with torch.no_grad():
            exact = model.stage_logits(tokens, tensors, stage)
            with torch.autocast("cpu", torch.bfloat16):
                logits = model.stage_logits(tokens, tensors, stage)
        assert exact.std() > 0.3
        assert (logits.float() - exact).abs().max() < 0.05 * (exact.max() - exact.min())


def test_norms_of_queries_and_keys_under_autocast_on_cuda() -> None:
    """Fake CUDA tensors go through CUDA's own list of what autocast casts."""
    dtypes = []
    state = torch.is_autocast_enabled("cuda"), torch.get_autocast_dtype("cuda")
    try:
        torch.set_autocast_enabled("cuda", True)        # `torch.autocast` refuses to without a GPU
        torch.set_autocast_dtype("cuda", torch.bfloat16)
        with FakeTensorMode(), torch.device("cuda"):
            layer = ContextAttentionLayer(64, 4, 128, custom=True, causal=False, qk_layer_norm=True,
                                          qk_layer_norm_cross=True, cross_attention=True)
            layer.self_attn.q_layer_norm.register_forward_hook(lambda *args: dtypes.append(args[2].dtype))
            x, text = torch.randn(2, 50, 64), torch.randn(2, 7, 64)
            for block in (layer._sa_block(x, Band(5)), layer._cross_attention_block(x, (text, None))):
                assert (block.shape, block.dtype, block.device.type) == (x.shape, torch.bfloat16, "cuda")
    finally:
        torch.set_autocast_enabled("cuda", state[0])
        torch.set_autocast_dtype("cuda", state[1])
    assert dtypes == [torch.float32]
