"""A process that generates all day: its memory stays flat, and a seed's audio is the same at the end as at the start."""
import gc
import itertools
import typing as tp

import psutil
import pytest
import torch

from magnet_plugin import MAGNeT

from . import ROUNDS

pytestmark = pytest.mark.faults
GENERATIONS = 2 * ROUNDS
WARMUP = 24             # in which every request was made twice, and the allocator has seen every size
GROWTH = 30             # MB that may be added after that, however many generations follow
SECONDS = 0.6
TEXT = "a fast reel in D major on the violin"


def requests(model: MAGNeT) -> list[tp.Callable[[int], torch.Tensor]]:
    """What visitors ask for, each as a function of a seed; settings change between the requests."""
    audio = model.generate([TEXT], seed=0)

    def with_settings(**settings: tp.Any) -> tp.Callable[[int], torch.Tensor]:
        def generate(seed: int) -> torch.Tensor:
            model.set_generation_params(duration=SECONDS, **settings)
            return model.generate([TEXT], seed=seed)
        return generate

    def then(edit: tp.Callable[[int], torch.Tensor]) -> tp.Callable[[int], torch.Tensor]:
        def generate(seed: int) -> torch.Tensor:
            model.set_generation_params(duration=SECONDS)
            return edit(seed)
        return generate

    def refused(seed: int) -> torch.Tensor:
        with pytest.raises(ValueError):
            model.set_generation_params(temperature=float("nan"))
        return torch.zeros(1)

    rate = model.sample_rate
    return [with_settings(), with_settings(engine="plain"), with_settings(top_k=20, top_p=0.0),
            with_settings(decoding_steps=[4, 2, 2, 2]), with_settings(rescorer="//bundled/musicgen-16khz"),
            with_settings(prompt_model="//bundled/musicgen-16khz", prompt_duration=0.3),
            then(lambda seed: model.generate([TEXT, "a slow air"], seed=seed)),
            then(lambda seed: model.generate_unconditional(1, seed=seed)),
            then(lambda seed: model.generate_continuation(audio[..., :rate // 4], rate, [TEXT], seed=seed)),
            then(lambda seed: model.inpaint(audio, rate, [(0.2, 0.4)], [TEXT], seed=seed).audio),
            then(lambda seed: model.extend(audio, rate, after=0.2, descriptions=[TEXT], seed=seed).audio), refused]


def test_memory_is_flat_and_seeds_keep_their_audio() -> None:
    model = MAGNeT.get_pretrained("//bundled/magnet-16khz", device="cpu")
    model.set_generation_params(duration=SECONDS)
    asked = requests(model)
    assert 2 * len(asked) == WARMUP
    first = [ask(7) for ask in asked]
    process, sizes = psutil.Process(), []
    for number, ask in zip(range(GENERATIONS), itertools.cycle(asked)):
        ask(number)
        if number >= WARMUP and number % len(asked) == 0:
            gc.collect()
            sizes.append(process.memory_info().rss / 1e6)
    print(f"{GENERATIONS} generations: {sizes[0]:.0f} MB after {WARMUP}, {sizes[-1]:.0f} MB at the end, "
          f"{max(sizes):.0f} MB at most")
    assert max(sizes) - sizes[0] < GROWTH
    for ask, expected in zip(asked, first):
        assert torch.equal(ask(7), expected)
