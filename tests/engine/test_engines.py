"""Engines, static buffers and KV caches are freed when they are no longer used, without the garbage collector."""
import gc
import typing as tp
import weakref

import pytest
import torch

from magnet_plugin.engine.engines import engine_for, release
from magnet_plugin.engine.forward import Engine
from magnet_plugin.engine.kept import KINDS

from ..helpers.small_models import HybridMagnetLMModel, MagnetLMModel, build


@pytest.fixture(autouse=True)
def without_the_garbage_collector() -> tp.Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def generate(model: tp.Any, frames: int) -> Engine:
    """Generate in static buffers, as on a GPU."""
    engine = engine_for(model, "model", torch.float32)
    engine.static = True
    prompt = {"prompt_frames": 4} if isinstance(model, HybridMagnetLMModel) else {}
    model.generate(max_gen_len=frames, num_samples=1, decoding_steps=[1, 1, 1, 1], engine="lean", **prompt)
    return engine


def references(engine: Engine) -> list[weakref.ref]:
    """References to an engine and to what it keeps."""
    caches = list(engine._caches.values())
    kept = [decoder for owner in (engine, *caches) for decoder in owner.decoders.values()]
    assert kept
    return [weakref.ref(one) for one in (engine, *caches, *kept)]


def alive(references: list[weakref.ref]) -> list[tp.Any]:
    return [one() for one in references if one() is not None]


@pytest.mark.parametrize("of", [MagnetLMModel, HybridMagnetLMModel])
def test_what_an_engine_no_longer_keeps_is_freed(of: type) -> None:
    """Decoders of a kind of clip and, for hybrid models, KV caches with the decoders that use them."""
    model = build(of, conditioned=False)
    found = references(generate(model, 8))[1:]
    assert len(found) == (1 if of is MagnetLMModel else 3)
    for i in range(KINDS):
        assert len(alive(found)) == len(found)
        generate(model, 16 + 8 * i)
    assert not alive(found)


@pytest.mark.parametrize("of", [MagnetLMModel, HybridMagnetLMModel])
def test_an_engine_is_freed_if_it_is_released_or_replaced_or_its_model_is_freed(of: type) -> None:
    model = build(of, conditioned=False)
    found = references(generate(model, 9))
    release(model)
    assert not alive(found)
    found = references(generate(model, 9))
    model.out_norm.weight.data.add_(1)
    engine_for(model, "bfloat16", torch.float32)
    assert not alive(found)
    found = references(generate(model, 9))
    del model
    assert not alive(found)
