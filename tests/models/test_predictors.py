"""Guided predictors of a model."""
import typing as tp

import pytest
import torch

from magnet_plugin.decoding.options import GenerationOptions
from magnet_plugin.models import predictors
from magnet_plugin.models.predictors import predictor

from ..helpers.guided_logits import TEXTS, cuda_model
from ..helpers.small_models import MagnetLMModel, build_scaled, conditions


def test_the_unconditional_branch_is_only_computed_where_guidance_needs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not in a step with guidance scale 1, outside of `guidance_interval`, or between steps of `guidance_every`."""
    model = build_scaled(MagnetLMModel, biases=True)
    seen: list[bool] = []
    original = predictors._reference_forward

    def recording(model: tp.Any, tensors: tp.Any) -> tp.Any:
        forward = original(model, tensors)
        return lambda tokens, stage, frames, both: seen.append(both) or forward(tokens, stage, frames, both)

    monkeypatch.setattr(predictors, "_reference_forward", recording)
    for options, expected in (({}, [1, 1, 1, 0]), ({"guidance_interval": (0, 0.9)}, [0, 1, 1, 0]),
                              ({"guidance_every": 2}, [1, 0, 1, 0]), ({"min_cfg_coef": 2.0}, [1, 1, 1, 1]),
                              ({"min_cfg_coef": 1.0, "max_cfg_coef": 1.0}, [0, 0, 0, 0])):
        seen.clear()
        model.generate(conditions=conditions(*TEXTS), max_gen_len=20, decoding_steps=[4, 4, 4, 4], engine="plain", **options)
        assert seen == [bool(x) for x in expected] * 4, options


@pytest.mark.gpu
@pytest.mark.parametrize("batch,length", [(1, 500), (16, 1500), (64, 500)])
def test_a_step_allocates_no_mask_over_all_pairs_of_frames(batch: int, length: int) -> None:
    """A whole step in float16 takes less memory than one Boolean mask of [B, heads, T, T] would."""
    model = cuda_model(torch.float16, num_layers=2)
    predict = predictor(model, conditions(*["a reel"] * batch), batch, GenerationOptions(engine="plain"))
    tokens = torch.full((batch, model.n_q, length), model.card, device="cuda")
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    with torch.no_grad():
        predict.logits(tokens, 1, 1.0, torch.arange(length, device="cuda").expand(batch, length)[:, :8])
    assert torch.cuda.max_memory_allocated() - before < max(batch * 4 * length * length, 64 * 2 ** 20)
