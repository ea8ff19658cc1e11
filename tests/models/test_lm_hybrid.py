"""The hybrid model equals a MAGNeT at switch 0 and AudioCraft's MusicGen at switch T; what its predictions depend on."""
import pytest
import torch
from audiocraft.modules.codebooks_patterns import ParallelPatternProvider
from audiocraft.modules.conditioners import ConditionFuser

from magnet_plugin.modules.hybrid_layout import Layout
from magnet_plugin.modules.hybrid_targets import choose_targets

from ..helpers.small_models import (
    CARD,
    HybridMagnetLMModel,
    K,
    MagnetLMModel,
    UpstreamMusicGen,
    build,
    build_scaled,
    conditions,
)

T = 24
TEXTS = conditions("a fast reel", "waltz in d major played on the violin")


def some_tokens(seed: int = 1, special: bool = False) -> torch.Tensor:
    return torch.randint(0, CARD + special, (2, K, T), generator=torch.Generator().manual_seed(seed))


VARIANTS: dict[str, dict] = {"published": {}, "biases": {"bias_ff": True, "bias_attn": True, "bias_proj": True},
                             "post-norm": {"norm_first": False}, "unrestricted": {"subcodes_context": -1}}


@pytest.mark.parametrize("variant", VARIANTS)
def test_logits_at_switch_zero_equal_those_of_a_magnet(variant: str) -> None:
    hybrid, plain = (build_scaled(klass, seed=seed, **VARIANTS[variant])
                     for seed, klass in enumerate((HybridMagnetLMModel, MagnetLMModel)))
    plain.load_state_dict(hybrid.state_dict())
    tokens, tensors = some_tokens(special=True), plain.embed_conditions(TEXTS)
    for stage in range(K):
        with torch.no_grad():
            expected = plain(tokens, [], tensors, stage=stage)
            for layout in (Layout.of(torch.tensor([0, 0]), T, K), Layout.single(0, 2, T, K)):
                got = hybrid.joint_logits(tokens, tensors, stage, layout)
                assert expected.std() > 0.3 and (got - expected).abs().max() < 1e-4, stage
            assert (hybrid(tokens, [], tensors, stage=stage) - expected).abs().max() < 1e-5
            # Another switch in the same batch changes nothing.
            mixed = hybrid.joint_logits(tokens, tensors, stage, Layout.of(torch.tensor([9, 0]), T, K))
            assert (mixed[1] - expected[1]).abs().max() < 1e-4
            assert (mixed[0] - expected[0]).abs().max() > 1e-2


@pytest.mark.parametrize("variant", [name for name in VARIANTS if name != "unrestricted"])
def test_logits_at_switch_t_equal_those_of_audiocrafts_musicgen(variant: str) -> None:
    hybrid, theirs = (build_scaled(klass, seed=seed, **VARIANTS[variant])
                      for seed, klass in enumerate((HybridMagnetLMModel, UpstreamMusicGen)))
    assert {k: v.shape for k, v in theirs.state_dict().items()} == {k: v.shape for k, v in hybrid.state_dict().items()}
    theirs.load_state_dict(hybrid.state_dict())
    tokens, tensors = some_tokens(), hybrid.embed_conditions(TEXTS)
    for valid_only, n in ((True, T), (False, T + K - 1)):
        with torch.no_grad():
            expected = theirs.compute_predictions(tokens, [], tensors, keep_only_valid_steps=valid_only)
            got = hybrid.compute_predictions(tokens, [], tensors, keep_only_valid_steps=valid_only)
            joint = hybrid.joint_logits(tokens, tensors, 2, Layout.of(torch.tensor([n, n]), T, K))
        assert torch.equal(got.mask, expected.mask)
        assert expected.mask.sum() == 2 * (K * T - (6 if valid_only else 0))
        for logits in (got.logits, joint):
            difference = (logits - expected.logits)[expected.mask]
            assert expected.logits[expected.mask].std() > 0.3 and difference.abs().max() < 1e-4
        assert got.logits[~got.mask].isnan().all()


@pytest.mark.parametrize("n", [1, 3, 9, T])
def test_logits_of_the_prefix_equal_musicgens_at_every_switch_and_stage(n: int) -> None:
    """They depend neither on the stage nor on anything after the switch."""
    hybrid, theirs = build_scaled(HybridMagnetLMModel), build_scaled(UpstreamMusicGen, seed=5)
    theirs.load_state_dict(hybrid.state_dict())
    tokens, tensors = some_tokens(), hybrid.embed_conditions(TEXTS)
    layout = Layout.of(torch.tensor([n, max(0, n - 1)]), T, K)
    with torch.no_grad():
        expected = theirs.compute_predictions(tokens, [], tensors, keep_only_valid_steps=False).logits
        for stage in range(K):
            targets = choose_targets(tokens, torch.ones_like(tokens, dtype=torch.bool), layout, stage,
                                     torch.tensor([0.9, 0.9]), 3, CARD, torch.Generator().manual_seed(0))
            got = hybrid.joint_logits(targets.inputs, tensors, stage, layout)
            assert (got - expected)[layout.prefix].abs().max() < 1e-4


@pytest.mark.parametrize("stage", range(K))
def test_each_prediction_depends_on_exactly_the_tokens_that_it_may_see(stage: int) -> None:
    """By the gradient with respect to each token's embedding, in a model of one layer, whose reach is its mask."""
    model = build_scaled(HybridMagnetLMModel, num_layers=1, conditioned=False)
    n, length, width = 7, 14, model.subcodes_context
    layout = Layout.single(n, 1, length, K)
    tokens = torch.randint(0, CARD, (1, K, length), generator=torch.Generator().manual_seed(0))
    embedded: list[torch.Tensor] = []
    hooks = [emb.register_forward_hook(lambda *args: embedded.append(args[2].requires_grad_()) or args[2])
             for emb in model.emb]
    logits = model.joint_logits(tokens, {}, stage, layout)
    for hook in hooks:
        hook.remove()
    placed = layout.place(torch.arange(K * length).view(1, K, length), -1)[0]              # token number by column
    for k in range(K):
        for t in range(length):
            written = k + t < n
            if not written and k != stage:
                continue
            grads = torch.autograd.grad(logits[0, k, t].square().sum(), embedded, retain_graph=True)
            reached = {int(placed[c, j]) for c in range(K) for j in range(layout.columns)
                       if grads[c][0, j].abs().sum() > 0 and placed[c, j] >= 0}
            for other in range(K):
                for frame in range(length):
                    number = other * length + frame
                    if written:
                        assert (number in reached) == (other + frame < k + t), (k, t, other, frame)
                    elif stage == 0 or abs(frame - t) <= width:
                        assert number in reached, (k, t, other, frame)
                    elif frame - t > width or t - frame > width + K - 1:
                        assert number not in reached, (k, t, other, frame)


def test_settings_that_the_joint_sequence_does_not_support_are_refused() -> None:
    with pytest.raises(ValueError, match="positional_embedding=sin"):
        build_scaled(HybridMagnetLMModel, positional_embedding="rope")
    model = build(HybridMagnetLMModel)
    common = dict(condition_provider=model.condition_provider, n_q=K, card=CARD, dim=64, num_heads=4, num_layers=1)
    with pytest.raises(ValueError, match="codebooks_pattern.modeling=delay"):
        HybridMagnetLMModel(pattern_provider=ParallelPatternProvider(K), fuser=model.fuser, **common)
    for how in ("prepend", "input_interpolate"):
        fuse = {"cross": [], "prepend": [], "sum": [], "input_interpolate": [], how: ["description"]}
        with pytest.raises(ValueError, match=f"fuser.{how}"):
            HybridMagnetLMModel(pattern_provider=model.pattern_provider, fuser=ConditionFuser(fuse), **common)
