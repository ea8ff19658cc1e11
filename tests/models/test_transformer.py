"""The transformer layer whose attention has a context."""
import pytest
import torch

from ..helpers.small_models import CARD, K, MagnetLMModel, build_scaled, conditions


@pytest.mark.parametrize("changes", [{}, {"positional_embedding": "rope"}, {"attention_as_float32": True}], ids=str)
def test_query_and_key_norms_run_under_autocast(changes: dict[str, object]) -> None:
    """Autocast computes norms in float32 and linear layers in bfloat16; attention needs q, k and v of one dtype."""
    model = build_scaled(MagnetLMModel, qk_layer_norm=True, qk_layer_norm_cross=True, **changes)
    tensors = model.embed_conditions(conditions("a slow air"))
    tokens = torch.randint(0, CARD, (1, K, 60), generator=torch.Generator().manual_seed(0))
    for stage in (0, 1):
        with torch.no_grad():
            exact = model.stage_logits(tokens, tensors, stage)
            with torch.autocast("cpu", torch.bfloat16):
                logits = model.stage_logits(tokens, tensors, stage)
        assert exact.std() > 0.3
        assert (logits.float() - exact).abs().max() < 0.05 * (exact.max() - exact.min())
