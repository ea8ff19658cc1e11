"""Random numbers of ranks, steps and data workers, from derived seeds."""
import typing as tp

import pytest
import torch

from magnet_plugin.distributed import seeds
from magnet_plugin.distributed.seeds import Stream, derive_seed, stage_and_generator

from ..helpers.toy_solver import Numbers

K = 4


def test_all_ranks_draw_the_same_stage_and_different_masks(monkeypatch: pytest.MonkeyPatch) -> None:
    stages, masks = [], []
    for rank in range(3):
        monkeypatch.setattr(seeds.flashy.distrib, "rank", lambda rank=rank: rank)
        drawn = [stage_and_generator(7, 2, step, K, "cpu") for step in range(40)]
        stages.append([stage for stage, _ in drawn])
        masks.append(torch.stack([torch.rand(4, generator=generator) for _, generator in drawn]))
    assert stages[0] == stages[1] == stages[2]
    assert set(stages[0]) == set(range(K))
    assert not torch.isin(masks[0], torch.cat(masks[1:])).any() and not torch.isin(masks[1], masks[2]).any()


def test_no_two_streams_coincide() -> None:
    keys = [(seed, stream, epoch, step, *rank) for seed in range(3) for stream in Stream for epoch in range(3)
            for step in range(10) for rank in [(), *((number,) for number in range(9))]]
    assert len({derive_seed(*key) for key in keys}) == len(keys)
    differing = [bin(derive_seed(7, n) ^ derive_seed(7, n + 1)).count("1") for n in range(200)]
    assert 28 < sum(differing) / len(differing) < 35 and min(differing) > 12, "half of the 63 bits differ"


def test_draws_can_be_repeated_and_are_the_same_in_each_validation() -> None:
    def sequence(seed: int, epoch: tp.Optional[int]) -> list[tuple[int, float]]:
        return [(stage, float(torch.rand((), generator=generator)))
                for stage, generator in (stage_and_generator(seed, epoch, step, K, "cpu") for step in range(12))]

    assert sequence(1, 3) == sequence(1, 3)
    assert sequence(1, 3) != sequence(1, 4) and sequence(1, 3) != sequence(2, 3)
    assert [stage for stage, _ in sequence(1, None)] == [0, 1, 2, 3] * 3
    assert sequence(1, None) == sequence(1, None) != sequence(2, None)


def test_the_random_numbers_of_an_item_do_not_depend_on_order_or_position() -> None:
    def items(order: list[int], epoch: int) -> dict[int, list[float]]:
        dataset = Numbers()
        dataset.current_epoch = epoch
        seeds.seed_items(torch.utils.data.Subset(dataset, range(len(dataset))), 3)
        return {index: dataset[index].tolist()[2:] for index in order}
    one, two, later = items([0, 1, 2, 3, 4], 1), items([4, 2, 0, 3], 1), items([0, 1, 2], 2)
    assert all(one[index] == two[index] for index in two)
    drawn = [number for values in (*one.values(), *later.values()) for number in values]
    assert len(set(drawn)) == len(drawn), "items and epochs draw independently, from Python's and from torch's generator"
