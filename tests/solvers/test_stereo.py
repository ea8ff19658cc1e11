"""Training, generating and measuring with a stereo model: real audio, codec and solver, in both layouts of tokens."""
import typing as tp
from pathlib import Path

import pytest
import torch
from audiocraft.data.audio_dataset import AudioMeta
from audiocraft.data.music_dataset import MusicInfo
from audiocraft.modules.conditioners import WavCondition

from ..helpers.rank_group import TINY
from ..helpers.stereo import LAYOUTS

RATE, SECONDS = 16000, 0.6


def solver_of(folder: Path, codec: Path, *overrides: str) -> tp.Any:
    """A MagnetSolver whose data loaders are empty."""
    from dora.conf import DoraConfig
    from dora.xp import XP

    from magnet_plugin.solvers.magnet import MagnetSolver

    from ..conftest import compose

    class WithoutData(MagnetSolver):
        def build_dataloaders(self) -> None:
            self.dataloaders = {name: torch.utils.data.DataLoader([]) for name in ("train", "valid")}

    torch.manual_seed(0)
    cfg = compose("solver=magnet/debug", *TINY, "transformer_lm.card=64", f"compression_model_checkpoint={codec}",
                  "generate.lm.decoding_steps=null", *overrides)
    xp = XP(dora=DoraConfig(dir=folder), cfg=cfg, argv=[], delta=[])
    xp.folder.mkdir(parents=True, exist_ok=True)
    with xp.enter():
        return WithoutData(cfg)


def batch(seed: int) -> tuple[torch.Tensor, list[MusicInfo]]:
    """Two stereo clips of noise with captions."""
    samples = int(RATE * SECONDS)
    audio = 0.1 * torch.randn(2, 2, samples, generator=torch.Generator().manual_seed(seed))
    wav = WavCondition(torch.zeros(1, 1, 1), torch.zeros(1), [RATE])
    infos = [MusicInfo(meta=AudioMeta(path=f"{text}.wav", duration=SECONDS, sample_rate=RATE), seek_time=0.0,
                       n_frames=samples, total_frames=samples, sample_rate=RATE, channels=2, description=text, self_wav=wav)
             for text in ("a reel", "a waltz")]
    return audio, infos


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_stereo_model_trains_generates_and_is_measured(layout: str, release_folder: Path, tmp_path: Path) -> None:
    from magnet_plugin.metrics.generation import GenerationMetrics
    solver = solver_of(tmp_path, release_folder, *LAYOUTS[layout])
    before = [parameter.detach().clone() for parameter in solver.model.emb.parameters()]
    stages, K = set(), solver.model.n_q
    assert (K, solver.model.segment_frames) == ((8, 30) if layout == "codebooks in turn" else (4, 60))
    for solver._current_stage in ("train", "valid"):
        for step in range(8):
            metrics = solver.run_step(step, batch(step), {})
            assert metrics["ce"].isfinite()
            stages |= {name for name in metrics if name.startswith("ce_q")}
    assert stages == {f"ce_q{stage + 1}" for stage in range(K)}
    assert all(not torch.equal(old, new) for old, new in zip(before, solver.model.emb.parameters(), strict=True))
    solver.model.eval()
    for seconds in (SECONDS, 0.57, 0.55):
        outputs = solver.run_generate_step(batch(9), seconds, prompt_duration=0.1)
        frames = -(-round(seconds * 100) // 2)
        assert outputs["gen_audio"].shape == (2, 2, 320 * frames)
    scores = GenerationMetrics(solver.compression_model, None)
    scores.update(outputs["gen_audio"].float(), batch(9)[0], [Path("a"), Path("b")], 1.0)
    assert scores.compute()["frechet"] > 0


def test_settings_that_do_not_fit_the_stereo_codec_are_named(release_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="set channels=2; transformer_lm.n_q=4, .* set transformer_lm.n_q=8"):
        solver_of(tmp_path, release_folder, "interleave_stereo_codebooks.use=true")
    with pytest.raises(ValueError, match="set transformer_lm.compression_model_framerate=100"):
        solver_of(tmp_path, release_folder, *LAYOUTS["frames in turn"][:-1])
