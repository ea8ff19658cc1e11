"""The decoding loop; a function stands in for the model."""
import random
import typing as tp

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from magnet_plugin.decoding import sampling
from magnet_plugin.decoding.known_tokens import KnownTokens
from magnet_plugin.decoding.magnet import NonFiniteLogits, decode
from magnet_plugin.decoding.options import GenerationOptions
from magnet_plugin.decoding.random_source import sample_seeds

from ..helpers.oracles import CARD, STEPS, K, Oracle, nothing_known, random_logits, run


@pytest.mark.parametrize("arrangement", ["stride1", "nonoverlap"])
@pytest.mark.parametrize("length", [1, 2, 3, 4, 25, 48, 97])
def test_a_clip_of_any_length_is_filled_completely(arrangement: str, length: int) -> None:
    tokens = run(random_logits(2, length), nothing_known(2, length), span_arrangement=arrangement)
    assert tokens.shape == (2, K, length)
    assert tokens.min() >= 0 and tokens.max() < CARD


def test_known_tokens_anywhere_are_kept_and_all_others_are_filled() -> None:
    draw = random.Random(1)
    for case in range(30):
        batch, length = draw.randint(1, 4), draw.randint(3, 40)
        generator = torch.Generator().manual_seed(case)
        known = torch.rand(batch, K, length, generator=generator) < draw.random()
        clip = KnownTokens(torch.randint(0, CARD, (batch, K, length), generator=generator), known)
        arrangement = draw.choice(["stride1", "nonoverlap"])
        tokens = run(random_logits(batch, length), clip, span_arrangement=arrangement)
        assert torch.equal(tokens[known], clip.tokens[known]), (case, arrangement)
        assert (tokens < CARD).all(), (case, arrangement)


def test_the_model_sees_known_tokens_and_codebooks_that_are_decoded() -> None:
    """At a stage, the codebooks below are complete; those above have the mask token wherever nothing is known."""
    known = torch.zeros(2, K, 20, dtype=torch.bool)
    known[:, :, 5:9] = True
    clip = KnownTokens(torch.full((2, K, 20), 7), known)
    predict = random_logits(2, 20)

    def check(tokens: torch.Tensor, stage: int, scale: float) -> torch.Tensor:
        assert (tokens[:, :stage] != CARD).all()
        assert torch.equal(tokens[:, stage + 1:] == CARD, ~known[:, stage + 1:])
        assert (tokens[known] == 7).all()
        return predict(tokens, stage, scale)

    run(check, clip)


def test_hidden_upper_codebooks_are_masked_for_the_model_and_kept_in_the_result() -> None:
    known = torch.zeros(2, K, 20, dtype=torch.bool)
    known[:, :, 5:9] = True
    known[:, 1] = True                                  # A codebook without anything to decode.
    clip = KnownTokens(torch.full((2, K, 20), 7), known)
    predict, stages = random_logits(2, 20), set()

    def check(tokens: torch.Tensor, stage: int, scale: float) -> torch.Tensor:
        stages.add(stage)
        assert (tokens[:, :stage] != CARD).all() and (tokens[:, stage + 1:] == CARD).all()
        assert (tokens[:, :stage + 1][known[:, :stage + 1]] == 7).all()
        return predict(tokens, stage, scale)

    tokens = run(check, clip, upper_codebooks="hidden")
    assert stages == {0, 2, 3} and (tokens < CARD).all() and (tokens[known] == 7).all()
    assert not torch.equal(tokens, run(predict, clip, upper_codebooks="shown"))


@pytest.mark.parametrize("rescored", [False, True])
@pytest.mark.parametrize("arrangement", ["stride1", "nonoverlap", "halton"])
def test_a_sample_can_be_decoded_again_by_itself(arrangement: str, rescored: bool) -> None:
    """Under its own seed, although its neighbours have other known tokens, or whole codebooks of them."""
    known = torch.rand(3, K, 24, generator=torch.Generator().manual_seed(2)) < torch.tensor([0.0, 0.5, 0.9])[:, None, None]
    known[1:, 0] = True
    clip = KnownTokens(torch.randint(0, CARD, (3, K, 24), generator=torch.Generator().manual_seed(3)), known)
    logits = torch.randn(K, 3, 24, CARD, generator=torch.Generator().manual_seed(4))

    def decoded(rows: list[int], seed: tp.Any) -> torch.Tensor:
        def score(tokens: torch.Tensor, stage: int) -> torch.Tensor:
            return torch.softmax(2 * logits[stage - 1, rows], dim=-1)

        settings: dict[str, tp.Any] = {"rescorer_weight": 0.5} if rescored else {}
        settings["span_order" if arrangement == "halton" else "span_arrangement"] = arrangement
        return run(lambda tokens, stage, scale: logits[stage, rows], KnownTokens(clip.tokens[rows], clip.known[rows]),
                   score if rescored else None, seed=seed, **settings)

    together, seeds = decoded([0, 1, 2], 5), sample_seeds(5, 3)
    assert seeds is not None
    for row in range(3):
        assert torch.equal(decoded([row], seeds[row])[0], together[row]), row
    assert torch.equal(decoded([2, 0], [seeds[2], seeds[0]]), together[[2, 0]])


def test_the_seed_decides_the_tokens() -> None:
    predict, clip = random_logits(3, 30), nothing_known(3, 30)
    assert torch.equal(run(predict, clip, seed=1), run(predict, clip, seed=1))
    assert not torch.equal(run(predict, clip, seed=1), run(predict, clip, seed=2))


def test_samples_of_a_batch_do_not_influence_each_other() -> None:
    """Samples with different known tokens, decoded as a batch and one by one."""
    table = random_logits(3, 31)
    known = torch.rand(3, K, 31, generator=torch.Generator().manual_seed(2)) < torch.tensor([0.0, 0.2, 0.7])[:, None, None]
    clip = KnownTokens(torch.randint(0, CARD, (3, K, 31), generator=torch.Generator().manual_seed(3)), known)
    logits = torch.stack([table(torch.zeros(1, 1), stage, 1.0) for stage in range(K)])
    batch = run(lambda tokens, stage, scale: logits[stage], clip, use_sampling=False)
    for i in range(3):
        single = run(lambda tokens, stage, scale, i=i: logits[stage, i:i + 1],
                    KnownTokens(clip.tokens[i:i + 1], known[i:i + 1]), use_sampling=False)
        assert torch.equal(single[0], batch[i]), i


def test_the_guidance_scale_falls_within_a_stage_and_progress_counts_all_steps() -> None:
    scales: list[float] = []
    progress: list[tuple[int, int]] = []
    predict = random_logits(1, 12)

    def record(tokens: torch.Tensor, stage: int, scale: float) -> torch.Tensor:
        scales.append(scale)
        return predict(tokens, stage, scale)

    options = GenerationOptions(decoding_steps=STEPS, max_cfg_coef=10.0, min_cfg_coef=2.0)
    decode(Oracle(record), nothing_known(1, 12), options, mask_id=CARD, span_len=3,
           callback=lambda *step: progress.append(step))
    assert progress == [(i + 1, sum(STEPS)) for i in range(sum(STEPS))]
    assert scales[0] == pytest.approx(10.0) and scales[4] == pytest.approx(2.0, abs=1e-5)
    assert scales[:5] == sorted(scales[:5], reverse=True)


class _HostReads(TorchDispatchMode):
    """Counts operations for which the host waits for the device: reading a value, and shapes that depend on values."""
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
        # Mask rates, which are float32 scalars, are on the host anyway.
        return not (isinstance(args[0], torch.Tensor) and args[0].dtype == torch.float32 and args[0].dim() == 0)


@pytest.mark.parametrize("arrangement", ["stride1", "nonoverlap"])
def test_the_host_waits_for_the_device_once_per_stage(arrangement: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sampling, "_on_host", lambda probs: False)
    with _HostReads() as reads:
        run(random_logits(2, 30), nothing_known(2, 30), span_arrangement=arrangement)
    assert reads.count == K     # for the check of the logits; unknown frames are counted once, before the first step


def test_a_clip_copies_its_mask_rates_to_the_device_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing else moves to the device, where this test counts calls that copy nothing on a CPU."""
    to, copied = torch.Tensor.to, []

    def count(self: torch.Tensor, *args: tp.Any) -> torch.Tensor:
        copied.extend([self] if isinstance(args[0], torch.device) else [])
        return to(self, *args)

    monkeypatch.setattr(torch.Tensor, "to", count)
    run(random_logits(2, 30), nothing_known(2, 30), use_sampling=False)
    assert [len(rates) for rates in copied] == [sum(STEPS)]


def test_the_error_about_non_finite_logits_names_stage_step_dtype_and_backend() -> None:
    calls = iter(range(100))

    def broken(tokens: torch.Tensor, stage: int, scale: float) -> torch.Tensor:
        logits = torch.zeros(1, 9, CARD)
        if next(calls) == 6:                        # stage 1 (after five steps of stage 0), second step
            logits[0, 4, 2] = float("nan")
        return logits

    with pytest.raises(NonFiniteLogits, match=r"stage 1, step 1 \(dtype float16, attention backend auto\)"):
        decode(Oracle(broken), nothing_known(1, 9), GenerationOptions(decoding_steps=STEPS), mask_id=CARD, span_len=3,
               describe=lambda: "(dtype float16, attention backend auto)")


def test_steps_are_reported_with_the_frames_that_they_mask() -> None:
    known = torch.zeros(2, K, 20, dtype=torch.bool)
    known[:, :, 5:9] = True
    reported: list[tuple[int, int, torch.Tensor]] = []
    seen: list[tuple[int, torch.Tensor]] = []
    predict = random_logits(2, 20)

    def watch(tokens: torch.Tensor, stage: int, scale: float) -> torch.Tensor:
        seen.append((stage, tokens[:, stage] == CARD))
        return predict(tokens, stage, scale)

    clip, options = KnownTokens(torch.full((2, K, 20), 7), known), GenerationOptions(decoding_steps=STEPS)
    decode(Oracle(watch), clip, options, mask_id=CARD, span_len=3,
           on_step=lambda step, masked: reported.append((step.stage, step.index, masked)))
    assert [(stage, index) for stage, index, _ in reported] == [
        (stage, index) for stage, count in enumerate(STEPS) for index in range(count)]
    for (stage, index, masked), (asked, hidden) in zip(reported, seen):
        assert stage == asked and torch.equal(masked, hidden), (stage, index)
        assert not (masked & known[:, stage]).any()
