"""Stereo models for tests, on the mono codec of the release folder, with both layouts of their tokens."""
import shutil
from pathlib import Path

import torch

from magnet_plugin.models import builders, checkpoints

from ..conftest import compose
from .weights import scale_weights

#: Overrides for 4 codebooks of each channel at 50 frames a second.
LAYOUTS = {
    "codebooks in turn": ["channels=2", "interleave_stereo_codebooks.use=true", "transformer_lm.n_q=8"],
    "frames in turn": ["channels=2", "interleave_stereo_codebooks.use=true", "interleave_stereo_codebooks.per_timestep=true",
                       "transformer_lm.compression_model_framerate=100"]}


def stereo_folder(folder: Path, codec_folder: Path, layout: str) -> Path:
    """A release folder of an untrained stereo MAGNeT on the codec of another release folder."""
    torch.manual_seed(0)
    cfg = compose("solver=magnet/debug", "device=cpu", "transformer_lm.card=64", "generate.lm.decoding_steps=null",
                  f"compression_model_checkpoint={codec_folder}", *LAYOUTS[layout])
    lm = scale_weights(builders.get_lm_model(cfg))
    checkpoints.release(lm.state_dict(), cfg, folder / checkpoints.LM_FILE)
    shutil.copy(codec_folder / checkpoints.CODEC_FILE, folder / checkpoints.CODEC_FILE)
    return folder
