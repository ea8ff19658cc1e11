"""Extreme dtypes, temperatures, guidance, shapes and weights give valid tokens or one error that names its place."""
import re
import typing as tp

import pytest
import torch

from magnet_plugin.decoding.known_tokens import KnownTokens
from magnet_plugin.decoding.magnet import NonFiniteLogits

from ..helpers.small_models import HybridMagnetLMModel, MagnetLMModel, build_scaled, conditions

LENGTH, CARD, TEXTS = 10, 40, ("a reel in D", None)
KINDS = {"plain": MagnetLMModel, "hybrid": HybridMagnetLMModel}
DTYPES = (torch.float32, torch.bfloat16, torch.float16)


def model_of(kind: str = "plain", dtype: torch.dtype = torch.float32, **changes: tp.Any) -> tp.Any:
    """A model of two layers for clips of `LENGTH` frames, in a dtype."""
    return cast(build_scaled(KINDS[kind], length=LENGTH, **changes), dtype)


def cast(model: tp.Any, dtype: torch.dtype, scale: float = 1.0) -> tp.Any:
    """Multiply all weights by `scale`, and convert them."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(scale)
    for conditioner in model.condition_provider.conditioners.values():
        conditioner.to(dtype)
    return model.to(dtype)


def tokens_of(model: tp.Any, engine: str, length: int = LENGTH, seed: int = 3, **options: tp.Any) -> torch.Tensor:
    """Decode two samples, one with a text; hybrid models begin with up to four autoregressive frames."""
    if isinstance(model, HybridMagnetLMModel):
        options.setdefault("prompt_frames", min(4, length))
    settings = {"decoding_steps": [3, 2, 1, 1][:model.n_q], "engine": engine, **options}
    return model.generate(conditions=conditions(*TEXTS), max_gen_len=length, seed=seed, **settings)


def check(model: tp.Any, length: int = LENGTH, exact: bool = True, **options: tp.Any) -> torch.Tensor:
    """Check that tokens are valid, the same again, and mostly or always those of the reference path; return them."""
    fast, again, reference = (tokens_of(model, engine, length, **options) for engine in ("lean", "lean", "plain"))
    for tokens in (fast, reference):
        assert tokens.shape == (len(TEXTS), model.n_q, length) and tokens.dtype == torch.long
        assert tokens.min() >= 0 and tokens.max() < model.card
    assert torch.equal(fast, again)
    assert torch.equal(reference, tokens_of(model, "plain", length, **options))
    if exact:
        assert torch.equal(fast, reference)
    return fast


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", KINDS)
def test_all_dtypes_give_valid_tokens(kind: str, dtype: torch.dtype) -> None:
    """Rounding of 16-bit numbers differs between the two paths, so that only float32 gives the same tokens."""
    check(model_of(kind, dtype), exact=dtype == torch.float32)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("temp", [1e-30, 5e-324, 1e-3, 1e30, 1e300])
def test_extreme_temperatures(kind: str, temp: float) -> None:
    model = model_of(kind)
    own = {"prompt_temperature": temp} if kind == "hybrid" else {}
    for anneal_temp in (True, False):
        check(model, temp=temp, anneal_temp=anneal_temp, **own)


def test_the_lowest_temperature_chooses_the_most_likely_tokens() -> None:
    model = model_of("hybrid")
    cold = {"temp": 1e-30, "prompt_temperature": 1e-30}
    assert torch.equal(check(model, use_sampling=False, **cold), check(model, seed=9, use_sampling=False, **cold))
    assert torch.equal(check(model, **cold)[..., :4, :1], check(model, use_sampling=False, **cold)[..., :4, :1])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("scale", [0.0, 50.0, 1e6])
def test_strong_guidance(kind: str, scale: float) -> None:
    own = {"prompt_cfg_coef": scale} if kind == "hybrid" else {}
    check(model_of(kind), max_cfg_coef=scale, min_cfg_coef=scale, **own)


@pytest.mark.parametrize("options", [{"top_p": 1e-30}, {"top_p": 1.0}, {"top_p": 0.0, "top_k": 1},
                                     {"top_p": 0.0, "top_k": 9999},
                                     {"span_arrangement": "nonoverlap", "span_scoring": "prod", "temp": 1e-30}])
def test_extreme_sampling(options: dict) -> None:
    check(model_of(), **options)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("changes", [{"card": 2}, {"card": 1}])
def test_few_different_tokens(kind: str, changes: dict) -> None:
    check(model_of(kind, **changes))


@pytest.mark.parametrize("kind", KINDS)
def test_one_codebook(kind: str) -> None:
    check(model_of(kind, n_q=1))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("length", [1, 2])
def test_the_shortest_clips(kind: str, dtype: torch.dtype, length: int) -> None:
    check(model_of(kind, dtype), length, exact=dtype == torch.float32)


@pytest.mark.parametrize("engine", ["lean", "plain"])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("share", ["all", "none", "all but one"])
def test_known_tokens_are_kept(kind: str, engine: str, share: str) -> None:
    model = model_of(kind)
    tokens = torch.randint(CARD, (2, 4, LENGTH), generator=torch.Generator().manual_seed(0))
    known = torch.full_like(tokens, share != "none", dtype=torch.bool)
    if share == "all but one":
        known[1, 2, 5] = False
    found = tokens_of(model, engine, known_tokens=KnownTokens(tokens, known))
    assert torch.equal(found[known], tokens[known]) and found.min() >= 0 and found.max() < CARD
    if share == "none":
        assert torch.equal(found, tokens_of(model, engine))


@pytest.mark.parametrize("engine", ["lean", "plain"])
@pytest.mark.parametrize(("kind", "dtype", "scale"), [
    ("plain", torch.float16, 1e4), ("hybrid", torch.float16, 1e4), ("plain", torch.bfloat16, 1e30),
    ("plain", torch.float32, 1e30), ("hybrid", torch.float32, 1e30)])
def test_weights_that_overflow_end_in_an_error_that_names_its_place(kind: str, engine: str, dtype: torch.dtype,
                                                                    scale: float) -> None:
    model = cast(model_of(kind), dtype, scale)
    with pytest.raises(NonFiniteLogits) as error:
        tokens_of(model, engine)
    place = "prompt step 0" if kind == "hybrid" else "stage 0, step 0"
    assert re.match(rf"logits are not finite at {place} \(dtype {str(dtype)[6:]}, .*; use .* lower \S+$", str(error.value))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_large_weights_that_do_not_overflow(kind: str, dtype: torch.dtype) -> None:
    check(cast(model_of(kind), dtype, 1e4), exact=False)
