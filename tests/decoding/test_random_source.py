import pytest
import torch

from magnet_plugin.decoding.random_source import GLOBAL, RandomSource, sample_seeds

CPU = torch.device("cpu")


def test_seeds_of_a_batch_are_distinct_and_do_not_depend_on_its_size() -> None:
    seeds = sample_seeds(3, 50)
    assert seeds is not None and len(set(seeds)) == 50 and seeds[0] == 3
    assert sample_seeds(3, 7) == seeds[:7] and sample_seeds(4, 7)[1:] != seeds[1:7]      # type: ignore[index]
    assert sample_seeds(seeds[4], 1) == [seeds[4]] and sample_seeds((5, 6), 2) == [5, 6] and sample_seeds(None, 2) is None


@pytest.mark.parametrize("seed", ["7", 1.5, True, [1, 2.5], [1, True], [1], 2 ** 64, object()])
def test_invalid_seeds_are_refused(seed: object) -> None:
    with pytest.raises(ValueError, match="seed"):
        sample_seeds(seed, 2)                                                             # type: ignore[arg-type]


def test_a_sample_has_the_same_numbers_in_any_batch() -> None:
    together = RandomSource.seeded([1, 2, 3]).uniform(3, 4, 5, device=CPU)
    assert together.shape == (3, 4, 5) and together.unique().numel() == 60
    assert torch.equal(RandomSource.seeded([3, 2]).uniform(2, 4, 5, device=CPU), together[[2, 1]])
    source = RandomSource.seeded([1])
    assert not torch.equal(source.uniform(1, 4, device=CPU), source.uniform(1, 4, device=CPU))
    with pytest.raises(ValueError, match="2 random generators for 3 samples"):
        RandomSource.seeded([1, 2]).uniform(3, device=CPU)


def test_without_seeds_torchs_global_state_is_used() -> None:
    torch.manual_seed(0)
    first = GLOBAL.uniform(2, 3, device=CPU)
    torch.manual_seed(0)
    assert torch.equal(RandomSource.seeded(None).uniform(2, 3, device=CPU), first)
