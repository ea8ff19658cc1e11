"""The decoding loop by itself: an oracle stands in for the model."""
import random
import typing as tp

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from magnet_plugin.decoding import sampling, span_masker
from magnet_plugin.decoding.known_tokens import KnownTokens
from magnet_plugin.decoding.magnet import NonFiniteLogits, decode
from magnet_plugin.decoding.options import PRESETS, GenerationOptions, preset
from magnet_plugin.modules.schedules import guidance_at, mask_rates, temperature_at

from ..helpers.oracles import AllFrames, Oracle

K, CARD = 4, 12
STEPS = (5, 3, 2, 1)


def oracle(batch: int, length: int, seed: int = 0) -> AllFrames:
    """Logits that depend on stage, position and on how many tokens are still unknown."""
    table = torch.randn(K, batch, length, CARD, generator=torch.Generator().manual_seed(seed))
    return lambda tokens, stage, guidance: table[stage] * (1 + (tokens == CARD).float().mean())


def nothing(batch: int, length: int) -> KnownTokens:
    return KnownTokens.from_prompt(torch.zeros(batch, K, 0, dtype=torch.long), length)


def run(predict: AllFrames, given: KnownTokens, seed: int = 0, **options: tp.Any) -> torch.Tensor:
    settings = GenerationOptions(**{"decoding_steps": STEPS, **options})
    return decode(Oracle(predict), given, settings, mask_id=CARD, span_len=3, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("arrangement", ["stride1", "nonoverlap"])
@pytest.mark.parametrize("length", [1, 2, 3, 4, 25, 48, 97])
def test_full_length_and_no_mask_left(arrangement: str, length: int) -> None:
    tokens = run(oracle(2, length), nothing(2, length), span_arrangement=arrangement)
    assert tokens.shape == (2, K, length)
    assert tokens.min() >= 0 and tokens.max() < CARD


def test_given_tokens_anywhere_are_kept_and_everything_else_is_filled() -> None:
    draw = random.Random(1)
    for case in range(30):
        batch, length = draw.randint(1, 4), draw.randint(3, 40)
        generator = torch.Generator().manual_seed(case)
        known = torch.rand(batch, K, length, generator=generator) < draw.random()
        given = KnownTokens(torch.randint(0, CARD, (batch, K, length), generator=generator), known)
        arrangement = draw.choice(["stride1", "nonoverlap"])
        tokens = run(oracle(batch, length), given, span_arrangement=arrangement)
        assert torch.equal(tokens[known], given.tokens[known]), (case, arrangement)
        assert (tokens < CARD).all(), (case, arrangement)


def test_the_model_sees_the_given_tokens_and_only_what_was_decoded() -> None:
    """At stage k, codebooks below are complete, those above show what is given and the mask token elsewhere."""
    known = torch.zeros(2, K, 20, dtype=torch.bool)
    known[:, :, 5:9] = True
    given = KnownTokens(torch.full((2, K, 20), 7), known)
    predict = oracle(2, 20)

    def check(tokens: torch.Tensor, stage: int, guidance: float) -> torch.Tensor:
        assert (tokens[:, :stage] != CARD).all()
        assert torch.equal(tokens[:, stage + 1:] == CARD, ~known[:, stage + 1:])
        assert (tokens[known] == 7).all()
        return predict(tokens, stage, guidance)

    run(check, given)


def test_masked_share_follows_the_schedule() -> None:
    """`nonoverlap` masks exactly floor(rate * n) spans; `stride1` comes within two spans of the frames asked for."""
    length, rates = 99, mask_rates(STEPS[0])
    for arrangement in ("nonoverlap", "stride1"):
        seen: list[int] = []
        predict = oracle(1, length)

        def count(tokens: torch.Tensor, stage: int, guidance: float, seen: list[int] = seen,
                  predict: AllFrames = predict) -> torch.Tensor:
            if stage == 0:
                seen.append(int((tokens[0, 0] == CARD).sum()))
            return predict(tokens, stage, guidance)

        run(count, nothing(1, length), span_arrangement=arrangement)
        for got, rate in zip(seen, rates, strict=True):
            expected = 3 * max(1, int(rate * 33)) if arrangement == "nonoverlap" else max(3, int(rate * length))
            assert abs(got - expected) <= (0 if arrangement == "nonoverlap" else 6), (arrangement, seen)


def test_seeds() -> None:
    predict, given = oracle(3, 30), nothing(3, 30)
    assert torch.equal(run(predict, given, seed=1), run(predict, given, seed=1))
    assert not torch.equal(run(predict, given, seed=1), run(predict, given, seed=2))


def test_samples_of_a_batch_do_not_influence_each_other() -> None:
    """Greedy decoding of a batch whose samples have different known tokens equals one by one."""
    table = oracle(3, 31)
    known = torch.rand(3, K, 31, generator=torch.Generator().manual_seed(2)) < torch.tensor([0.0, 0.2, 0.7])[:, None, None]
    given = KnownTokens(torch.randint(0, CARD, (3, K, 31), generator=torch.Generator().manual_seed(3)), known)
    logits = torch.stack([table(torch.zeros(1, 1), stage, 1.0) for stage in range(K)])
    together = run(lambda tokens, stage, guidance: logits[stage], given, use_sampling=False)
    for i in range(3):
        alone = run(lambda tokens, stage, guidance, i=i: logits[stage, i:i + 1],
                    KnownTokens(given.tokens[i:i + 1], known[i:i + 1]), use_sampling=False)
        assert torch.equal(alone[0], together[i]), i


def test_guidance_and_progress() -> None:
    coefficients: list[float] = []
    progress: list[tuple[int, int]] = []
    predict = oracle(1, 12)

    def note(tokens: torch.Tensor, stage: int, guidance: float) -> torch.Tensor:
        coefficients.append(guidance)
        return predict(tokens, stage, guidance)

    options = GenerationOptions(decoding_steps=STEPS, max_cfg_coef=10.0, min_cfg_coef=2.0)
    decode(Oracle(note), nothing(1, 12), options, mask_id=CARD, span_len=3, callback=lambda *step: progress.append(step))
    assert progress == [(i + 1, sum(STEPS)) for i in range(sum(STEPS))]
    assert coefficients[0] == pytest.approx(10.0) and coefficients[4] == pytest.approx(2.0, abs=1e-5)
    assert coefficients[:5] == sorted(coefficients[:5], reverse=True)


class _HostReads(TorchDispatchMode):
    """Counts what makes the host wait for the device: reading a value, and shapes that depend on values."""
    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func: tp.Any, types: tp.Any, args: tp.Any = (), kwargs: tp.Any = None) -> tp.Any:
        names = ("_local_scalar_dense", "nonzero", "masked_select", "unique")
        picked = "aten.index" in str(func) and any(x is not None and x.dtype == torch.bool for x in args[1])
        self.count += picked or any(name in str(func) for name in names) and self._on_device(args)
        return func(*args, **(kwargs or {}))

    @staticmethod
    def _on_device(args: tp.Any) -> bool:
        # The schedule's rates are made on the host and read there: a float32 scalar.
        return not (isinstance(args[0], torch.Tensor) and args[0].dtype == torch.float32 and args[0].dim() == 0)


@pytest.mark.parametrize("arrangement", ["stride1", "nonoverlap"])
def test_one_host_read_per_stage(arrangement: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sampling, "_on_host", lambda probs: False)
    with _HostReads() as reads:
        run(oracle(2, 30), nothing(2, 30), span_arrangement=arrangement)
    assert reads.count == K             # whether all was finite; what is free is read once, before the first step


def test_non_finite_logits_name_stage_step_dtype_and_backend() -> None:
    calls = iter(range(100))

    def broken(tokens: torch.Tensor, stage: int, guidance: float) -> torch.Tensor:
        logits = torch.zeros(1, 9, CARD)
        if next(calls) == 6:                        # stage 1 (after five steps of stage 0), second step
            logits[0, 4, 2] = float("nan")
        return logits

    with pytest.raises(NonFiniteLogits, match=r"stage 1, step 1 \(dtype float16, attention backend auto\)"):
        decode(Oracle(broken), nothing(1, 9), GenerationOptions(decoding_steps=STEPS), mask_id=CARD, span_len=3,
               describe=lambda: "(dtype float16, attention backend auto)")


def slow_nucleus(probs: torch.Tensor, top_k: int, top_p: float) -> torch.Tensor:
    """The distribution to draw from, token by token."""
    kept, mass = [], 0.0
    for token in probs.argsort(descending=True).tolist():
        if top_p and mass > top_p or not top_p and top_k and len(kept) == top_k:
            break
        kept.append(token)
        mass += float(probs[token])
    expected = torch.zeros_like(probs)
    expected[kept] = probs[kept]
    return expected / expected.sum()


@pytest.mark.parametrize("on_host", [True, False])
@pytest.mark.parametrize("by_noise", [True, False])
def test_draws_follow_the_truncated_distribution(on_host: bool, by_noise: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sampling, "_on_host", lambda probs: on_host)
    draws, generator = 20_000, torch.Generator().manual_seed(3)
    cases = [(0, 0.0, 1.0), (0, 0.9, 1.0), (0, 0.3, 1.0), (0, 0.99, 3.0), (3, 0.0, 1.0), (3, 0.9, 0.3), (1, 0.0, 1.0),
             (0, 1e-6, 1.0), (0, 0.9, 30.0)]
    for case, (top_k, top_p, sharpness) in enumerate(cases):
        probs = torch.softmax(sharpness * torch.randn(3, 25, generator=generator), dim=-1)
        probs[2, :20] = 0                                           # tokens without weight are never drawn
        probs = probs / probs.sum(-1, keepdim=True)
        many = probs.expand(draws, 3, 25)
        noise = sampling.exponential_noise(many, generator) if by_noise else None
        tokens = sampling.draw(many, top_k, top_p, generator, noise)
        assert tokens.shape == (draws, 3)
        for row in range(3):
            expected = slow_nucleus(probs[row], top_k, top_p)
            counts = tokens[:, row].bincount(minlength=25)
            assert (counts[expected == 0] == 0).all(), case
            inside = expected > 0
            chi2 = ((counts - draws * expected)[inside].square() / (draws * expected[inside])).sum()
            few = int((draws * expected[inside] < 5).sum())         # cells too thin for the approximation
            assert chi2 < 2.5 * (int(inside.sum()) + 6) + 40 * few, (case, row, float(chi2), int(inside.sum()))


def test_remasking_against_slow_references() -> None:
    generator = torch.Generator().manual_seed(5)
    for length, span_len in ((10, 3), (11, 4), (9, 3), (5, 2)):
        chunks = -(-length // span_len)
        scores = torch.rand(2, chunks, generator=generator)
        count = torch.tensor([1, chunks - 1])
        mask = span_masker.mask_chunks(scores, count, span_len, length)
        for row in range(2):
            expected = torch.zeros(length, dtype=torch.bool)
            for chunk in scores[row].argsort(descending=True)[:count[row]].tolist():
                expected[chunk * span_len:(chunk + 1) * span_len] = True
            assert torch.equal(mask[row], expected)
        probs = torch.rand(2, length, generator=generator)
        for how, slow in (("max", lambda p: 1 - p.max()), ("prod", lambda p: -p.log().sum())):
            expected = torch.stack([torch.stack([slow(row[i:i + span_len]) for i in range(0, length, span_len)])
                                    for row in probs])
            assert torch.allclose(span_masker.chunk_scores(probs, span_len, how), expected, atol=1e-6), how


def test_schedules() -> None:
    rates = mask_rates(10)
    assert rates.dtype == torch.float32 and rates[0] == 1 and abs(rates[-1]) < 1e-6
    assert int(rates[5] * 480) == int(torch.cos(torch.linspace(0, 1, 10) * torch.pi / 2)[5] * 480)
    assert guidance_at(1.0, 10, 1) == 10 and guidance_at(0.0, 10, 1) == 1
    assert temperature_at(0, 10, 3.0) == pytest.approx(2.7)
    assert temperature_at(9, 10, 3.0) == 0.01 and temperature_at(9, 10, 3.0, anneal=False) == 3.0


@pytest.mark.parametrize("setting,value", [
    ("top_p", 1.5), ("top_p", -0.1), ("top_k", -1), ("temp", 0.0), ("span_arrangement", "grid"), ("span_scoring", "mean"),
    ("max_cfg_coef", -1.0), ("decoding_steps", [20, 0, 10, 10]), ("decoding_steps", []), ("decoding_steps", "many")])
def test_bad_options_name_the_setting(setting: str, value: tp.Any) -> None:
    word = "temperature" if setting == "temp" else setting
    with pytest.raises(ValueError, match=word):
        GenerationOptions(**{setting: value})


def test_steps_for_every_codebook_or_an_error() -> None:
    for steps in ((20, 10, 10), (20, 10, 10, 10, 10)):
        with pytest.raises(ValueError, match="decoding_steps.*4 codebooks"):
            run(oracle(1, 9), nothing(1, 9), decoding_steps=steps)


def test_prompt_longer_than_the_clip() -> None:
    with pytest.raises(ValueError, match="prompt has 9 frames.*duration"):
        KnownTokens.from_prompt(torch.zeros(1, K, 9, dtype=torch.long), 9)


def test_presets_are_the_papers() -> None:
    assert PRESETS["sound-10s"].max_cfg_coef == 20.0 and PRESETS["music-30s"].decoding_steps == (60, 10, 10, 10)
    assert preset("music-10s", top_p=0.5).top_p == 0.5
    with pytest.raises(ValueError, match="music-10s, music-30s, sound-10s"):
        preset("speech")
    plain = GenerationOptions().plain()
    assert plain["decoding_steps"] == [20, 10, 10, 10] and GenerationOptions(**plain) == GenerationOptions()
