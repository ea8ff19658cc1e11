"""`bench.scale.recipes`: what is read from a config is that of the real models."""
import typing as tp
from pathlib import Path

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

import magnet_plugin
from magnet_plugin.bench.scale import recipes
from magnet_plugin.bench.scale.estimate import memory
from magnet_plugin.bench.scale.hardware import Assumptions

from ..conftest import compose
from .meter import Meter

T5 = {"t5-small": (512, 2048, 6, 8, 64), "t5-base": (768, 3072, 12, 12, 64), "t5-large": (1024, 4096, 24, 16, 64)}
#: AudioCraft's config/model/encodec/encodec_large_nq4_s640.yaml (MusicGen) and encodec_large_nq4_s320.yaml (AudioGen).
LARGE = ("seanet.n_filters=64", "seanet.dimension=128", "seanet.lstm=2", "rvq.n_q=4", "rvq.bins=2048")
CODECS = {"//pretrained/facebook/encodec_32khz": (*LARGE, "seanet.ratios=[8,5,4,4]", "sample_rate=32000"),
          "//reference/bd44a852/checkpoint.th": (*LARGE, "seanet.ratios=[8,5,4,2]", "sample_rate=16000"),
          "//bundled/codec-16khz": ()}


@torch.no_grad()
def counted(model: torch.nn.Module, run: tp.Callable[[], tp.Any], recurrent: float = 0) -> tuple[float, ...]:
    """The fields of `Frozen`, of the second of two calls: the first leaves the weights of `weight_norm` behind."""
    weights = sum(x.numel() * x.element_size() for x in [*model.parameters(), *model.buffers()])
    with Meter() as meter:
        run()
        cached, before = meter.live, meter.moved
        meter.peak = cached
        with FlopCounterMode(display=False) as counter:
            run()
    return weights + cached, counter.get_total_flops(), meter.moved - before, meter.peak - cached, recurrent


@pytest.mark.integ
@pytest.mark.parametrize("name", recipes.TEXTS)
def test_costs_of_text_encoders(name: str) -> None:
    from transformers import T5Config, T5EncoderModel
    d_model, d_ff, layers, heads, d_kv = T5[name]
    with torch.device("meta"):
        model = T5EncoderModel(T5Config(d_model=d_model, d_ff=d_ff, num_layers=layers, num_heads=heads, d_kv=d_kv)).eval()
        ids = torch.zeros(1, Assumptions().text_tokens, dtype=torch.long)
    channels, frozen = recipes.TEXTS[name]
    assert channels == d_model
    assert frozen == pytest.approx(counted(model, lambda: model(ids)), rel=0.02), "may change a little with transformers"


@pytest.mark.parametrize("checkpoint", recipes.CODECS)
def test_costs_of_codecs(checkpoint: str) -> None:
    from audiocraft.models import builders
    cfg = compose("solver=compression/tiny_16khz", "device=meta", *CODECS[checkpoint])
    with torch.device("meta"):
        codec = builders.get_compression_model(cfg).eval()
        audio = torch.zeros(1, cfg.channels, cfg.sample_rate)
    frozen = recipes.CODECS[checkpoint]
    assert frozen == counted(codec, lambda: codec.encode(audio), cfg.seanet.lstm * codec.frame_rate)
    assert frozen.on(30) == (frozen.held, *(30 * cost for cost in frozen[1:]))


def test_parameters_and_settings() -> None:
    from audiocraft.models import builders
    magnet_plugin.register()
    built = builders.get_lm_model(compose("solver=magnet/debug", "device=cpu"))
    recipe = recipes.read(recipes.settings("magnet/debug"))
    assert recipe.parameters == sum(p.numel() for p in built.parameters())
    assert recipe.tensors == len(list(built.parameters()))
    assert recipe.shape.frames == built.segment_frames and recipe.precision == "bfloat16" and recipe.updates == 2 * 5
    music = "magnet/magnet_32khz"
    small = recipes.read(recipes.settings(music, "small"))
    fsdp = recipes.read(recipes.settings(music, "small", fsdp=True, more=["optim.optimizer=adamw"]))
    shape = small.shape
    layer = 16 * shape.dim ** 2 + 3 * 2 * shape.dim
    around = shape.codebooks * (2 * shape.card + 1) * shape.dim + 2 * shape.dim + (768 + 1) * shape.dim
    assert small.parameters == 24 * layer + around and (shape.dim, shape.layers, shape.frames) == (1024, 24, 1500)
    text = (768 + 1) * shape.dim
    assert small.units == (around - text, *[layer] * 24, text), "FSDP wraps layers and the conditioner"
    assert (small.optimizer, small.batch, small.precision, small.ema_every) == ("dadam", 192, "float16", 10)
    assert (fsdp.fsdp, fsdp.precision, fsdp.optimizer) == ("shard_grad_op", "bfloat16", "adamw")
    sound = recipes.read(recipes.settings("magnet/audio_magnet_16khz", "small", more=["dataset.batch_size=64"]))
    assert (sound.batch_key, sound.batch) == ("dataset.train.batch_size", 256), "the training's own batch takes precedence"
    assert small.batch_key == "dataset.batch_size"


@pytest.mark.parametrize("optimizer", ["adamw", "dadam"])
def test_states_match_a_real_solver(optimizer: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from dora.conf import DoraConfig
    from dora.xp import XP

    from magnet_plugin.solvers.magnet import MagnetSolver
    more = [f"optim.optimizer={optimizer}", "optim.lr=1"]
    cfg = compose("solver=magnet/debug", "device=cpu", "logging.log_tensorboard=false", *more)
    monkeypatch.setattr(MagnetSolver, "build_dataloaders",
                        lambda self: setattr(self, "dataloaders", {"train": [], "valid": []}))
    xp = XP(dora=DoraConfig(dir=tmp_path), cfg=cfg, argv=[], delta=[])
    xp.folder.mkdir(parents=True)
    with xp.enter():
        solver = MagnetSolver(cfg)
    for parameter in solver.model.parameters():
        parameter.grad = torch.randn_like(parameter)
    solver.optimizer.step()

    def size(tensors: tp.Iterable[tp.Any]) -> int:
        return sum(x.numel() * x.element_size() for x in tensors if isinstance(x, torch.Tensor) and x.dim())

    recipe = recipes.read(recipes.settings("magnet/debug", more=more))
    found, _ = memory(recipe, 4, 1, Assumptions())
    assert found["weights"] == size(solver.model.parameters())
    assert found["gradients"] == size(p.grad for p in solver.model.parameters())
    assert found["optimizer"] == size(x for state in solver.optimizer.state.values() for x in state.values())
    assert found["EMA"] == size(x for state in solver.ema.state.values() for x in state.values())
