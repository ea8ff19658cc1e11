"""Mixin for the stages `generate` and `evaluate` of a MAGNeT solver."""
import math
import typing as tp
from pathlib import Path

import flashy
import torch
from audiocraft.data.audio_dataset import AudioDataset
from audiocraft.modules.conditioners import SegmentWithAttributes
from audiocraft.solvers.musicgen import MusicGenSolver
from audiocraft.utils.samples.manager import SampleManager
from audiocraft.utils.utils import get_dataset_from_loader, is_jsonable
from omegaconf import DictConfig

from ..decoding.rescoring import Rescorer
from ..engine.engines import release
from ..metrics.generation import GenerationMetrics
from ..metrics.instruments import InstrumentClassifier
from ..models import builders
from ..models.auxiliary import load_rescorer
from ..models.rescorers import CausalRescorer, MaskedRescorer
from ..models.stereo import clip_frames

Batch = tuple[torch.Tensor, list[SegmentWithAttributes]]


class GeneratingSolver(MusicGenSolver):
    """Solver mixin that generates with the settings of `generate.lm`, including a rescorer, and evaluates the result.

    Raises:
        ValueError: a setting of `generate.lm` is invalid.
    """
    _rescorer: tp.Optional[Rescorer] = None
    _generation_metrics: tp.Optional[GenerationMetrics] = None

    def __init__(self, cfg: DictConfig) -> None:
        options = builders.get_generation_options(cfg)      # before anything is built
        options.check_codebooks(cfg.transformer_lm.n_q)
        super().__init__(cfg)
        self.generation_params = options.plain()

    def run_generate_step(self, batch: Batch, gen_duration: float, prompt_duration: tp.Optional[float] = None,
                          remove_prompt: bool = False, **generation_params: tp.Any) -> dict:
        """Generate clips for a batch as AudioCraft does, with the rescorer of the config.

        During `evaluate_audio_generation`, the clips are added to the metrics.

        Args:
            batch: audio [B, C, samples] and conditions.
            gen_duration: length of the clips in seconds.
            prompt_duration: length of the audio prompt in seconds, taken from the batch; no prompt by default.
            remove_prompt: whether to cut the prompt off the result.
            generation_params: ignored; `self.generation_params` apply.

        Returns:
            AudioCraft's outputs, e.g. `gen_audio` [B, C, samples] and the real-time factor `rtf`.
        """
        # AudioCraft multiplies by the frame rate again and rounds up, without a tolerance.
        gen_duration = (clip_frames(gen_duration, self.compression_model) - 1e-6) / float(self.compression_model.frame_rate)
        source = self.cfg.generate.lm.rescorer
        params = self.generation_params
        if source is not None and params["rescorer_weight"] < 1:
            if self._rescorer is None:
                self._rescorer = load_rescorer(source, self.compression_model, self.device, params["engine"])
            self.generation_params = {**params, "rescorer": self._rescorer}
        try:
            outputs = super().run_generate_step(batch, gen_duration, prompt_duration, remove_prompt)
        finally:
            self.generation_params = params
        if self._generation_metrics is not None:
            files = [Path(info.meta.path) for info in batch[1]]
            self._generation_metrics.update(outputs["gen_audio"].float().cpu(), batch[0].cpu(), files,
                                            outputs["rtf"] * gen_duration)
        return outputs

    def evaluate_audio_generation(self) -> dict:
        """Compute AudioCraft's metrics, and with `evaluate.metrics.frechet` or `.instruments` the plugin's.

        All metrics use the same generated clips.
        """
        enabled, loader = self.cfg.evaluate.metrics, self.dataloaders["evaluate"]
        if not (enabled.frechet or enabled.instruments):
            return super().evaluate_audio_generation()
        classifier = None
        if enabled.instruments:
            classifier = InstrumentClassifier.train(self.cfg.datasource.train, self.cfg.metrics.instruments.clips)
        generation = self._generation_metrics = GenerationMetrics(self.compression_model, classifier, bool(enabled.frechet))
        try:
            metrics = super().evaluate_audio_generation()
            if not generation.clips:                        # AudioCraft generates clips only for its own metrics
                for batch in self.log_progress("evaluate_generation", loader, total=len(loader), updates=self.log_updates):
                    duration = self.cfg.evaluate.fixed_generation_duration or batch[0].shape[-1] / self.cfg.sample_rate
                    self.run_generate_step(batch, gen_duration=duration)
        finally:
            self._generation_metrics = None
        flashy.distrib.barrier()
        return {**metrics, **generation.compute(self._sum_over_ranks)}

    def _sum_over_ranks(self, tensor: torch.Tensor) -> None:
        """Sum a tensor over all ranks in place, on the device that their backend needs."""
        moved = tensor.to(self.device)
        flashy.distrib.all_reduce(moved)
        tensor.copy_(moved)

    def generate(self) -> dict:
        """Run the stage `generate`, then free the memory that only generation needs."""
        try:
            return super().generate()
        finally:
            self._free()

    def evaluate(self) -> dict:
        """Run the stage `evaluate`, then free the memory that only generation needs."""
        try:
            return super().evaluate()
        finally:
            self._free()

    def _free(self) -> None:
        """Free the fast path's weights and graphs, those of the rescorer too."""
        release(self.model)
        if isinstance(self._rescorer, (CausalRescorer, MaskedRescorer)):
            release(self._rescorer.lm)

    def generate_audio(self) -> dict:
        """Generate and save clips for the `generate` split, with and without audio prompts as `generate.lm` sets."""
        manager = SampleManager(self.xp)
        loader = self.dataloaders["generate"]
        lm, average = self.cfg.generate.lm, flashy.averager()
        dataset = get_dataset_from_loader(loader)
        assert isinstance(dataset, AudioDataset) and dataset.segment_duration
        duration = lm.gen_duration or dataset.segment_duration
        prompts = [None] * bool(lm.unprompted_samples) + [lm.prompt_duration or duration / 4] * bool(lm.prompted_samples)
        metrics: dict = {}
        index = flashy.distrib.rank() * math.ceil(len(dataset) / flashy.distrib.world_size())
        for batch in self.log_progress(str(self.current_stage), loader, total=len(loader), updates=self.log_updates):
            audio, infos = batch
            for prompt_duration in prompts:
                outputs = self.run_generate_step(batch, gen_duration=duration, prompt_duration=prompt_duration)
                self._save_samples(manager, outputs, audio, infos, index)
                metrics = average({"rtf": outputs["rtf"]})
            index += len(infos)
        flashy.distrib.barrier()
        return metrics

    def _save_samples(self, manager: SampleManager, outputs: dict, audio: torch.Tensor,
                      infos: tp.Sequence[SegmentWithAttributes], first: int) -> None:
        """Save the clips of a batch and their settings.

        Args:
            manager: AudioCraft's writer of samples.
            outputs: of `run_generate_step`.
            audio: reference audio [B, C, samples].
            infos: conditions.
            first: index of the first clip within the stage, which makes file names unique for equal captions.
        """
        prompts = outputs["prompt_audio"]
        settings = {"span_len": self.cfg.masking.span_len, "rescorer": self.cfg.generate.lm.rescorer,
                    **self.generation_params}
        for i, info in enumerate(infos):
            conditions = {name: value or "" for name, value in info.to_condition_attributes().text.items()
                          if name in self.model.condition_provider.conditioners and is_jsonable(value)}
            manager.add_sample(outputs["gen_audio"][i].cpu(), self.epoch, first + i, conditions,
                               None if prompts is None else prompts[i].cpu(), audio[i].cpu(), settings)
