"""Reductions over ranks, and gradients of zero for unused parameters."""
import pytest
import torch

from magnet_plugin.distributed import reduction


@pytest.mark.parametrize("world_size", (1, 3, 8))
@pytest.mark.parametrize("length", (1, 5, 8, 17))
def test_ranks_validate_equally_many_clips_and_all_of_them(length: int, world_size: int) -> None:
    shards = [reduction.shard_indices(length, rank, world_size) for rank in range(world_size)]
    assert {len(shard) for shard in shards} == {-(-length // world_size)}
    indices = sorted(index for shard in shards for index in shard)
    assert set(indices) == set(range(length)) and len(indices) - length < world_size, "repeats only to fill up"


def test_mean_over_ranks_divides_the_sum_by_the_number_of_ranks(monkeypatch: pytest.MonkeyPatch) -> None:
    counts = torch.tensor([3, 0])
    assert reduction.mean_over_ranks(counts).tolist() == [3.0, 0.0], "a single rank"
    monkeypatch.setattr(reduction.flashy.distrib, "is_distributed", lambda: True)
    monkeypatch.setattr(reduction.flashy.distrib, "world_size", lambda: 4)
    monkeypatch.setattr(torch.distributed, "all_reduce", lambda value: value.add_(7))
    assert reduction.mean_over_ranks(counts).tolist() == [2.5, 1.75]
    assert counts.tolist() == [3, 0], "the argument is not changed"


def test_touch_all_keeps_the_loss_and_gives_unused_parameters_zero_gradients() -> None:
    used, unused = torch.nn.Parameter(torch.ones(2)), torch.nn.Parameter(torch.ones(3))
    loss = (2 * used).sum()
    touched = reduction.touch_all(loss, [used, unused])
    touched.backward()
    assert torch.equal(touched, loss)
    assert used.grad is not None and used.grad.tolist() == [2.0, 2.0]
    assert unused.grad is not None and unused.grad.tolist() == [0.0, 0.0, 0.0]
