"""Rescoring and the cascade in place: in the loop with functions for models, and through the API with released formats."""
import json
import typing as tp
from pathlib import Path

import pytest
import torch

import magnet_plugin
from magnet_plugin.decoding.known_tokens import KnownTokens
from magnet_plugin.decoding.magnet import NonFiniteLogits, decode
from magnet_plugin.decoding.options import GenerationOptions
from magnet_plugin.decoding.rescoring import NO_RESCORING, Rescoring, Score
from tests.decoding.test_magnet import CARD, STEPS, K, nothing, oracle
from tests.helpers.oracles import AllFrames, Oracle
from tests.helpers.small_musicgens import build_musicgen, musicgen_folder

ARRANGEMENTS = ("stride1", "nonoverlap")


def opinions(batch: int, length: int, seed: int = 5) -> Score:
    """Probabilities that depend on stage and position."""
    table = (2 * torch.randn(K, batch, length, CARD, generator=torch.Generator().manual_seed(seed))).softmax(-1)
    return lambda tokens, stage: table[stage]


def run(predict: AllFrames, given: KnownTokens, score: tp.Optional[Score] = None, **options: tp.Any) -> torch.Tensor:
    settings = GenerationOptions(**{"decoding_steps": STEPS, **options})
    rescoring = NO_RESCORING if score is None or not settings.rescores else Rescoring(score, settings)
    return decode(Oracle(predict), given, settings, mask_id=CARD, span_len=3, generator=torch.Generator().manual_seed(0),
                  rescoring=rescoring)


def some_known(batch: int, length: int) -> KnownTokens:
    known = torch.rand(batch, K, length, generator=torch.Generator().manual_seed(2)) < 0.2
    return KnownTokens(torch.full((batch, K, length), 7), known)


@pytest.mark.parametrize("arrangement", ARRANGEMENTS)
@pytest.mark.parametrize("sampling", [True, False])
def test_weight_one_is_bit_identical_and_the_next_weight_below_is_close(arrangement: str, sampling: bool) -> None:
    """Where a rescorer is asked, candidate and kept tokens are drawn with the same noise: a small share of an opinion,
    whatever it is, changes little."""
    predict, given = oracle(2, 40), some_known(2, 40)
    how: dict[str, tp.Any] = {"span_arrangement": arrangement, "use_sampling": sampling}

    def untouchable(tokens: torch.Tensor, stage: int) -> torch.Tensor:
        raise AssertionError("asked at w = 1")

    alone = run(predict, given, **how)
    assert torch.equal(run(predict, given, untouchable, rescorer_weight=1.0, **how), alone)
    near, other = (run(predict, given, opinions(2, 40, seed=seed), rescorer_weight=1 - 1e-7, **how) for seed in (3, 4))
    assert (near == other).float().mean() > 0.99
    if not sampling:
        assert (near == alone).float().mean() > 0.99
    assert (run(predict, given, opinions(2, 40), rescorer_weight=0.2, **how) == alone).float().mean() < 0.9


@pytest.mark.parametrize("arrangement", ARRANGEMENTS)
def test_at_weight_zero_the_rescorer_decides_all_unknown_tokens(arrangement: str) -> None:
    given = some_known(2, 31)
    wanted = torch.randint(0, CARD, (2, K, 31), generator=torch.Generator().manual_seed(4))
    tokens = run(oracle(2, 31), given, lambda tokens, stage: torch.nn.functional.one_hot(wanted[:, stage], CARD).float(),
                 rescorer_weight=0.0, span_arrangement=arrangement)
    assert torch.equal(tokens, torch.where(given.known, given.tokens, wanted))


def test_what_the_rescorer_reads() -> None:
    """A whole candidate: no mask up to the stage, and above it only what is unknown is masked."""
    given, seen = some_known(2, 25), []
    table = opinions(2, 25)

    def check(tokens: torch.Tensor, stage: int) -> torch.Tensor:
        seen.append(stage)
        assert (tokens[:, :stage + 1] != CARD).all()
        assert torch.equal(tokens[:, stage + 1:] == CARD, ~given.known[:, stage + 1:])
        assert (tokens[given.known] == 7).all()
        return table(tokens, stage)

    run(oracle(2, 25), given, check, rescorer_weight=0.5)
    assert seen == [stage for stage in range(K) for _ in range(STEPS[stage])]
    seen.clear()
    run(oracle(2, 25), given, check, rescorer_weight=0.5, rescorer_stages=(0, 2), rescorer_every=2)
    assert seen == [0, 0, 0, 2]


@pytest.mark.parametrize("arrangement", ARRANGEMENTS)
def test_the_combination_decides_what_is_masked_again(arrangement: str) -> None:
    """MAGNeT is equally sure everywhere; the rescorer finds all of its tokens in some frames unlikely."""
    length, masked = 24, []
    certain = torch.full((1, length, CARD), -30.0)
    certain[..., 3] = 30.0
    disliked = torch.zeros(length, dtype=torch.bool)
    disliked[9:15] = True

    def predict(tokens: torch.Tensor, stage: int, guidance: float) -> torch.Tensor:
        masked.append(tokens[0, stage] == CARD)
        return certain

    def score(tokens: torch.Tensor, stage: int) -> torch.Tensor:
        probs = torch.zeros(1, length, CARD)
        probs[..., 3] = torch.where(disliked, 0.01, 0.99)
        probs[..., 4] = 1 - probs[..., 3]
        return probs

    tokens = run(predict, nothing(1, length), score, rescorer_weight=0.5, rescorer_resample=False,
                 decoding_steps=(8, 1, 1, 1), span_arrangement=arrangement)
    assert (tokens == 3).all(), "without resampling MAGNeT's tokens stay"
    second = [mask for mask in masked[:8] if mask.sum() <= 9]
    assert second and all((disliked | ~mask)[mask].float().mean() >= 0.6 for mask in second)
    assert all(disliked[mask].any() for mask in second)


def test_non_finite_scores_of_a_rescorer_are_reported() -> None:
    table = opinions(1, 12)

    def broken(tokens: torch.Tensor, stage: int) -> torch.Tensor:
        return table(tokens, stage) * (float("nan") if stage == 1 else 1)

    with pytest.raises(NonFiniteLogits, match="stage 1, step 0"):
        run(oracle(1, 12), nothing(1, 12), broken, rescorer_weight=0.5)


@pytest.fixture(scope="module")
def musicgen(release_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return musicgen_folder(tmp_path_factory.mktemp("musicgen"), release_folder)


@pytest.fixture(scope="module")
def model(release_folder: Path) -> tp.Any:
    magnet_plugin.register()
    from audiocraft.models import MAGNeT
    return MAGNeT.get_pretrained(str(release_folder), device="cpu")


FEW: dict[str, tp.Any] = {"decoding_steps": [4, 2, 2, 2]}
TEXTS = ["a fast reel", "a slow waltz on the flute"]


def tokens_with(model: tp.Any, seed: int = 1, **params: tp.Any) -> torch.Tensor:
    model.set_generation_params(**FEW, **params)
    return model.generate(TEXTS, return_tokens=True, seed=seed)[1]


def test_a_released_musicgen_rescores_a_released_magnet(model: tp.Any, musicgen: Path, release_folder: Path) -> None:
    from magnet_plugin import MAGNeT
    from magnet_plugin.models.magnet import settings
    alone = tokens_with(model)
    rescored = tokens_with(model, rescorer=musicgen, rescorer_weight=0.5)
    assert torch.equal(rescored, tokens_with(model, rescorer=str(musicgen), rescorer_weight=0.5))
    assert rescored.shape == alone.shape and not torch.equal(rescored, alone)
    plain = json.loads(json.dumps(settings(model)))
    assert plain["rescorer"] == str(musicgen) and plain["rescorer_weight"] == 0.5 and plain["prompt_model"] is None
    assert torch.equal(tokens_with(model, rescorer=musicgen, rescorer_weight=1.0), alone)
    for change in ({"rescorer_stages": [0]}, {"rescorer_every": 2}, {"rescorer_cfg_coef": 3.0}, {"rescorer_fill": "greedy"},
                   {"rescorer_anneal": False}, {"rescorer_resample": False}):
        assert not torch.equal(tokens_with(model, rescorer=musicgen, rescorer_weight=0.5, **change), rescored), change
    assert torch.equal(tokens_with(model), alone) and model.rescorer_name is None
    own = MAGNeT.get_pretrained(str(release_folder), device="cpu", rescorer=musicgen)
    assert own.options.rescorer_weight == 0.7 and own.rescorer_name == str(musicgen)
    assert torch.equal(tokens_with(own, rescorer_weight=0.5), rescored)
    assert torch.equal(tokens_with(own, rescorer_weight=1.0), alone) and own.rescorer_name is None
    own.set_preset("music-10s")
    assert own.options.rescorer_weight == 0.7 and own.rescorer_name == str(musicgen)
    assert own.generate_unconditional(1, seed=1).isfinite().all()
    again = tokens_with(model, rescorer=release_folder, rescorer_weight=0.5)
    assert not torch.equal(again, alone) and not torch.equal(again, rescored)


def test_the_cascade_is_one_call_and_one_seed(model: tp.Any, musicgen: Path) -> None:
    from magnet_plugin.models.auxiliary import load_prompt_model
    from magnet_plugin.models.magnet import settings
    alone = tokens_with(model)
    both = tokens_with(model, prompt_model=musicgen, prompt_duration=0.5)
    torch.manual_seed(7)
    assert torch.equal(tokens_with(model, prompt_model=musicgen, prompt_duration=0.5), both)
    attributes = model._prepare_tokens_and_attributes(TEXTS, None)[0]
    written = load_prompt_model(musicgen, model.compression_model).generate(attributes, 2, 25, seed=1)
    assert both.shape == alone.shape and torch.equal(both[..., :25], written)
    model.set_generation_params(**FEW)
    expected = model.lm.generate(written, attributes, max_gen_len=100, seed=1, **model.generation_params)
    assert torch.equal(both, expected)
    assert not torch.equal(tokens_with(model, seed=2, prompt_model=musicgen, prompt_duration=0.5)[..., :25], written)
    plain = json.loads(json.dumps(settings(model)))
    assert plain["prompt_model"] == str(musicgen) and plain["prompt_duration"] == 0.5
    assert torch.equal(tokens_with(model, rescorer=musicgen, rescorer_weight=0.5, prompt_model=musicgen,
                                   prompt_duration=0.5)[..., :25], written)
    assert torch.equal(tokens_with(model), alone)


def test_a_prompt_of_sound_is_continued_by_both(model: tp.Any, musicgen: Path) -> None:
    model.set_generation_params(**FEW, prompt_model=musicgen, prompt_duration=0.5)
    sound = torch.randn(1, 1, 3200, generator=torch.Generator().manual_seed(0)) * 0.1
    _, tokens = model.generate_continuation(sound, 16000, ["a reel"], return_tokens=True, seed=1)
    assert torch.equal(tokens[..., :10], model.compression_model.encode(sound)[0]) and tokens.shape[-1] == 100
    with pytest.raises(ValueError, match="already has 25 frames.*raise prompt_duration"):
        model.generate_continuation(torch.zeros(1, 1, 8000), 16000, ["a reel"])
    assert model.generate_unconditional(2, seed=1).shape == (2, 1, 32000)


def test_progress_includes_the_steps_of_the_prompt(model: tp.Any, musicgen: Path) -> None:
    model.set_generation_params(**FEW, prompt_model=musicgen, prompt_duration=0.2)
    seen: list[tuple[int, int]] = []
    model.set_custom_progress_callback(lambda done, total: seen.append((done, total)))
    model.generate(["a reel"], progress=True)
    model.set_custom_progress_callback(None)
    assert seen == [(i, 13 + 10) for i in range(1, 24)]


BAD: list[tuple[dict[str, tp.Any], str]] = [
    ({"rescorer_weight": 0.5}, "rescorer_weight=0.5 needs a rescorer"),
    ({"rescorer": "./none"}, "no checkpoint found"),
    ({"rescorer": "//bundled/magnet-16khz"}, "rescorer //bundled/magnet-16khz and .*cardinality 512 instead of 64"),
    ({"rescorer": "//bundled/magnet-16khz", "rescorer_stages": [4]}, "stages 0 to 3, not 4"),
    ({"prompt_model": "x"}, "prompt_duration=0"), ({"prompt_duration": 0.5}, "or prompt_model="),
    ({"prompt_model": "x", "prompt_duration": 2.0}, "below duration=2 s"),
    ({"prompt_model": "x", "prompt_duration": -1.0}, "prompt_duration=-1"),
]


@pytest.mark.parametrize("params,words", BAD, ids=[words.split()[0] + str(i) for i, (_, words) in enumerate(BAD)])
def test_bad_input_is_refused_and_changes_nothing(model: tp.Any, params: dict[str, tp.Any], words: str) -> None:
    model.set_generation_params(**FEW, duration=1.0)
    before = dict(model.generation_params)
    with pytest.raises(ValueError, match=words):
        model.set_generation_params(**params)
    assert model.generation_params == before and model.duration == 1.0


def test_a_magnet_is_refused_as_prompt_model(model: tp.Any, release_folder: Path) -> None:
    with pytest.raises(ValueError, match="prompt_model .* is not autoregressive"):
        model.set_generation_params(prompt_model=release_folder, prompt_duration=0.5)
    with pytest.raises(ValueError, match="rescorer_weight=0.5 needs a rescorer"):
        model.lm.generate(num_samples=1, max_gen_len=10, rescorer_weight=0.5, decoding_steps=[1, 1, 1, 1])


def test_the_bundled_magnet_with_an_untrained_musicgen() -> None:
    from magnet_plugin import MAGNeT
    own = MAGNeT.get_pretrained("//bundled/magnet-16khz", device="cpu", rescorer=build_musicgen(card=512))
    own.set_generation_params(**FEW, duration=1.0, rescorer_weight=0.7, prompt_model=build_musicgen(card=512, seed=1),
                              prompt_duration=0.3)
    wav, tokens = own.generate(["a fast reel on the flute"], return_tokens=True, seed=1)
    assert wav.shape == (1, 1, 16000) and tokens.shape == (1, 4, 50) and wav.isfinite().all()
    own.set_generation_params(**FEW, duration=1.0, rescorer="//bundled/magnet-16khz")
    assert own.generate(["a fast reel on the flute"], seed=1).isfinite().all()
