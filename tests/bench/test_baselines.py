"""`bench.baselines`: the matrix products of a step are those of the model."""
import typing as tp

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from magnet_plugin.bench import baselines
from magnet_plugin.bench.settings import Size
from magnet_plugin.modules.context import Band, Full
from tests.helpers.small_models import MagnetLMModel

CPU = torch.device("cpu")


@pytest.mark.parametrize("stage,context", [(0, Full()), (1, Band(5))])
def test_matrix_products_of_a_guided_step(stage: int, context: tp.Any) -> None:
    """As many FLOPs as the model's linear layers and, where all frames are attended to, its attention."""
    size, length, batch = Size(64, 2, 4), 48, 2
    model = baselines.build(MagnetLMModel, size, length, CPU, torch.float32)
    linear = 2 * batch * length * 2 * sum(p.numel() for name, p in model.transformer.named_parameters()
                                          if p.dim() == 2 and "cross" not in name)
    cross = 2 * batch * length * 2 * size.dim ** 2 * size.layers                # queries and output, one branch
    head = 2 * 2 * batch * length * size.dim * baselines.CARD
    attention = 2 * 2 * 2 * batch * length ** 2 * size.dim * size.layers if stage == 0 else 0
    with FlopCounterMode(display=False) as counter:
        baselines.matrix_products(size, batch, length, context, CPU, torch.float32, packed=False)()
    assert counter.get_total_flops() == linear + cross + head + attention


def test_a_model_that_cannot_be_built_is_reported_when_it_runs() -> None:
    with pytest.raises(RuntimeError, match="cannot be built: no kernel"):
        baselines.failing(ValueError("no kernel"))()
