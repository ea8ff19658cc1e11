"""Texts do not depend on their neighbours in a batch, in no model and no way of decoding."""
import typing as tp

import pytest
import torch

import magnet_plugin
from tests.helpers.small_models import CARD, build_scaled, conditions

magnet_plugin.register()
from magnet_plugin.decoding.random_source import sample_seeds  # noqa: E402
from magnet_plugin.models.conditions import embed  # noqa: E402
from magnet_plugin.models.lm_hybrid import HybridMagnetLMModel  # noqa: E402
from magnet_plugin.models.lm_magnet import MagnetLMModel  # noqa: E402
from magnet_plugin.models.rescorers import rescorer_of  # noqa: E402
from tests.helpers.small_musicgens import build_musicgen  # noqa: E402

TEXTS = ("a reel", "a very slow waltz in d major played on the old violin", None)
NEGATIVE = ("noise", "a loud trumpet out of tune", "drums")
SETTINGS: dict[str, tp.Any] = {"decoding_steps": [4, 2, 2, 2], "max_gen_len": 24}


@pytest.fixture(scope="module")
def model() -> tp.Any:
    return build_scaled(MagnetLMModel)


def tokens_of(model: tp.Any, rows: tp.Sequence[int], seeds: tp.Any, negative: bool = False, **options: tp.Any
              ) -> torch.Tensor:
    away = conditions(*(NEGATIVE[row] for row in rows)) if negative else ()
    return model.generate(None, conditions(*(TEXTS[row] for row in rows)), seed=seeds, negative=away, **options, **SETTINGS)


CASES: list[dict[str, tp.Any]] = [{"engine": "plain"}, {"engine": "lean"}, {"engine": "plain", "negative": True},
                                  {"engine": "lean", "negative": True}]


@pytest.mark.parametrize("options", CASES)
def test_a_text_gives_the_same_tokens_alone_and_in_a_batch(model: tp.Any, options: dict[str, tp.Any]) -> None:
    seeds = sample_seeds(11, 3)
    assert seeds is not None
    together = tokens_of(model, [0, 1, 2], 11, **options)
    for row in range(3):
        assert torch.equal(tokens_of(model, [row], seeds[row], **options)[0], together[row]), row
    assert not torch.equal(tokens_of(model, [0, 1, 2], 11, text_padding="attended", **options)[0], together[0])


def test_the_same_holds_for_rescored_tokens(model: tp.Any) -> None:
    seeds, together = sample_seeds(11, 3), {}
    assert seeds is not None
    for name, lm in (("musicgen", build_musicgen(card=CARD)), ("magnet", build_scaled(MagnetLMModel, seed=9))):
        options = {"rescorer": rescorer_of(lm), "rescorer_weight": 0.3, "rescorer_cfg_coef": 2.0}
        together[name] = tokens_of(model, [0, 1, 2], 11, **options)
        for row in range(3):
            assert torch.equal(tokens_of(model, [row], seeds[row], **options)[0], together[name][row]), (name, row)
    assert not torch.equal(together["musicgen"], together["magnet"])


def test_the_same_holds_for_a_hybrid_model() -> None:
    hybrid, seeds = build_scaled(HybridMagnetLMModel), sample_seeds(11, 3)
    assert seeds is not None
    for options in ({}, {"negative": True}):
        together = tokens_of(hybrid, [0, 1, 2], 11, prompt_frames=7, **options)
        for row in range(3):
            assert torch.equal(tokens_of(hybrid, [row], seeds[row], prompt_frames=7, **options)[0], together[row]), row


def test_negative_texts_take_the_place_of_the_unconditional_branch(model: tp.Any) -> None:
    without = tokens_of(model, [0, 1], 3)
    assert not torch.equal(tokens_of(model, [0, 1], 3, negative=True), without)
    empty = model.generate(None, conditions(*TEXTS[:2]), seed=3, negative=conditions(None, None), **SETTINGS)
    assert torch.equal(empty, without)
    plain = tokens_of(model, [0, 1], 3, negative=True, engine="plain")
    assert torch.equal(plain, tokens_of(model, [0, 1], 3, negative=True, engine="lean"))
    with pytest.raises(ValueError, match="negative texts need texts to lead to"):
        model.generate(None, seed=3, negative=conditions("noise"), num_samples=1, **SETTINGS)
    with pytest.raises(ValueError, match="1 conditions .* for 2 samples"):
        model.generate(None, conditions(*TEXTS[:2]), negative=conditions("noise"), **SETTINGS)


def test_texts_are_embedded_once_until_the_weights_change() -> None:
    model, calls = build_scaled(MagnetLMModel), []
    model.condition_provider.register_forward_hook(lambda *args: calls.append(1))
    with torch.no_grad():
        first = embed(model, conditions("a reel", "a waltz", "a reel"), guided=True)
        assert len(calls) == 3              # Two texts, and no text.
        again = embed(model, conditions("a waltz"), guided=False)["description"][0]
        assert len(calls) == 3 and torch.equal(again[0], first["description"][0][1])
        next(model.condition_provider.parameters()).add_(1.0)
        changed = embed(model, conditions("a waltz"), guided=False)["description"][0]
    assert len(calls) == 4 and not torch.equal(changed, again)
    assert first["description"][0].shape[0] == 6


def test_attributes_that_the_model_does_not_read_do_not_matter(model: tp.Any) -> None:
    """The clips of AudioCraft's data sets have some that cannot be hashed."""
    [plain], [full] = conditions("a reel"), conditions("a reel")
    full.text["meta"] = {"path": "reel.wav"}
    one, other = (embed(model, [row], guided=False) for row in (plain, full))
    assert torch.equal(one["description"][0], other["description"][0])
