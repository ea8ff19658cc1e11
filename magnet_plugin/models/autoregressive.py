"""AutoregressiveModel: a MusicGen or AudioGen that generates whole clips, for comparison with MAGNeT."""
import typing as tp
from pathlib import Path

import torch
from audiocraft.models import CompressionModel
from audiocraft.models.builders import get_wrapped_compression_model
from audiocraft.modules.conditioners import ConditioningAttributes

from . import checkpoints
from .auxiliary import load_prompt_model
from .loaders import Device, load_codec
from .prompt_models import PromptModel
from .stereo import clip_frames


class AutoregressiveModel:
    """A MusicGen or AudioGen that generates whole clips, with the arguments of `MAGNeT.generate`.

    Attributes:
        compression_model: the codec.
        sample_rate: sample rate of the audio in Hz.
        duration: length of a clip in seconds.
    """

    def __init__(self, model: PromptModel, codec: CompressionModel, duration: float) -> None:
        self.lm, self._model, self.compression_model = model.lm, model, codec
        self.sample_rate, self.duration = int(codec.sample_rate), duration

    @staticmethod
    def load(source: tp.Union[str, Path], device: Device = "cpu") -> "AutoregressiveModel":
        """Load a MusicGen or AudioGen by name, with its codec and the clip length that it was trained on."""
        cfg = checkpoints.load_package(source, checkpoints.LM_FILE)["xp.cfg"]
        codec = get_wrapped_compression_model(load_codec(source, device), cfg)
        model = load_prompt_model(source, codec, device, engine="plain")           # As AudioCraft has it.
        return AutoregressiveModel(model, codec, float(cfg.dataset.segment_duration))

    @torch.no_grad()
    def generate(self, descriptions: tp.Sequence[str], return_tokens: bool = False, *, seed: tp.Optional[int] = None
                 ) -> tp.Any:
        """Generate audio [B, channels, samples] from one text per sample, and with `return_tokens` also tokens [B, K, T]."""
        conditions = [ConditioningAttributes(text={"description": text}) for text in descriptions]
        length = clip_frames(self.duration, self.compression_model)
        tokens = self._model.generate(conditions, len(conditions), length, seed)
        audio = self.compression_model.decode(tokens)
        return (audio, tokens) if return_tokens else audio
