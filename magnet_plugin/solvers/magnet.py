"""Solver for MAGNeT: AudioCraft's MusicGenSolver with the paper's masking, loss and decoding (section 3.1)."""
import typing as tp
from pathlib import Path

import flashy
import torch
from audiocraft.solvers import builders as upstream
from omegaconf import DictConfig

from ..data.preflight import preflight
from ..data.unreadable import LIMIT, check_limit, count_reads
from ..distributed import fsdp
from ..distributed.reduction import Conditions, accumulate_gradients, mean_over_ranks, shard_indices, touch_all
from ..distributed.seeds import stage_and_generator
from ..models import builders, checkpoints
from ..models.lm_magnet import MagnetLMModel
from ..modules import schedules
from ..modules.losses import masked_cross_entropy
from ..modules.masking import corrupt, stage_mask
from .evaluation import Batch, GeneratingSolver
from .preemption import PreemptibleSolver
from .settings import check_accumulate
from .sharding import ShardedSolver


class MagnetSolver(PreemptibleSolver, ShardedSolver, GeneratingSolver):
    """Train a masked model of audio tokens, one codebook (stage) per step.

    A solver for another kind of model overrides `compute_loss`.

    Raises:
        ValueError: a setting is invalid, or does not match the codec.
    """

    def __init__(self, cfg: DictConfig) -> None:
        check_accumulate(cfg)
        check_limit(cfg.datasource.get("max_unreadable", LIMIT))
        super().__init__(cfg)

    def build_model(self) -> None:
        """Build codec, language model and optimizer.

        Raises:
            ValueError: the config does not match the codec; the message lists all mismatches.
        """
        failed: tp.Optional[AssertionError] = None
        try:
            super().build_model()
        except AssertionError as error:
            failed = error
        mismatches = builders.codec_mismatches(self.cfg, self.compression_model)
        if mismatches:
            raise ValueError(f"the config does not match the codec {self.cfg.compression_model_checkpoint}: "
                             + "; ".join(mismatches)) from failed
        if failed is not None:
            raise failed
        if not self.cfg.fsdp.use:               # equal seeds should give equal weights, but do not rely on it
            flashy.distrib.broadcast_model(self.model)
        if self.cfg.optim.compile:
            for layer in self.model.transformer.layers:
                layer.compile(backend=self.cfg.optim.compile)

    def build_dataloaders(self) -> None:
        """Check the manifests, log a warning with a remedy for each problem, and build AudioCraft's data loaders.

        The data sets skip unreadable files; see `data.unreadable`.
        """
        if flashy.distrib.is_rank_zero():
            splits = [self.cfg.execute_only] if self.cfg.execute_only else ["train", "valid"]
            folders = {split: Path(self.cfg.datasource[split]) for split in splits}
            for problem in preflight(folders, self.cfg.dataset.segment_duration,
                                     self.cfg.dataset.batch_size * flashy.distrib.world_size(), self.cfg.sample_rate,
                                     self.cfg.dataset.min_segment_ratio, bool(self.cfg.conditioners), self.cfg.channels):
                self.logger.warning(problem)
        super().build_dataloaders()
        for name, loader in self.dataloaders.items():
            subset = loader.dataset
            count_reads(loader, name, self.cfg.datasource.get("max_unreadable", LIMIT))
            if name != "train" and flashy.distrib.is_distributed() and isinstance(subset, torch.utils.data.Subset):
                subset.indices = shard_indices(len(tp.cast(tp.Sized, subset.dataset)), flashy.distrib.rank(),
                                               flashy.distrib.world_size())

    def load_checkpoints(self, load_best: bool = False, ignore_state_keys: tp.Sequence[str] = ()) -> tp.Optional[dict]:
        if self.cfg.continue_from and self.checkpoint_path(use_fsdp=False).exists():
            self.logger.warning(f"This run resumes from its own checkpoint and ignores "
                                f"continue_from={self.cfg.continue_from}. To start again from that model, add label=NAME.")
        return super().load_checkpoints(load_best, list(ignore_state_keys))

    def load_state_dict(self, state: dict) -> None:
        weights = (state.get("fsdp_best_state") or state.get("best_state") or {}).get("model")
        if weights and not self.cfg.fsdp.use:               # shards have other shapes
            checkpoints.check_weights(self.model, weights, self.cfg.continue_from or self.checkpoint_path())
        super().load_state_dict(state)

    def load_from_pretrained(self, name: str) -> dict:
        return {"best_state": {"model": checkpoints.load_package(name, checkpoints.LM_FILE)["best_state"]}}

    def run_step(self, idx: int, batch: Batch, metrics: dict) -> dict:
        """Run one step of training or validation.

        Args:
            idx: step within the epoch, from 0.
            batch: audio and conditions.
            metrics: dict to add the metrics of the step to. Those of training are means over all ranks.
        """
        conditions, tokens, valid = self._prepare_tokens_and_attributes(batch)
        self.deadlock_detect.update("tokens_and_conditions")
        stage, generator = stage_and_generator(self.cfg.seed, self.epoch if self.is_training else None, idx,
                                               tokens.shape[1], self.device)
        loss, parts = self.compute_loss(tokens, valid, conditions, stage, generator)
        self.deadlock_detect.update("loss")
        found = {"ce": loss.detach(), **parts}
        if self.is_training:
            self.optimize(loss, metrics)
            found = dict(zip(found, mean_over_ranks(torch.stack(list(found.values())))))
        metrics.update(found, ppl=found["ce"].exp())
        metrics[f"ppl_q{stage + 1}"] = found[f"ce_q{stage + 1}"].exp()
        return metrics

    def compute_loss(self, tokens: torch.Tensor, valid: torch.Tensor, conditions: Conditions, stage: int,
                     generator: torch.Generator) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Compute the cross entropy of the masked frames of codebook `stage`, in nats.

        In training this is a mean over the masked frames of all ranks: the sum of a rank is divided by the ranks' mean
        number of masked frames. The mean of the ranks' gradients is then the gradient of one rank with the whole batch.
        With `optim.accumulate` above 1, all micro-batches but the last have added their gradients when this returns.

        Args:
            tokens: Long [B, K, T].
            valid: Bool [B, K, T], False on padding.
            conditions: embedded conditions.
            stage: codebook to train, from 0.
            generator: source of the masks.

        Returns:
            The loss, and the parts of it to report, among them `ce_q1`, ... for the stage.
        """
        B, _, T = tokens.shape
        rates = schedules.mask_rate(torch.rand(B, generator=generator, device=generator.device)).to(tokens.device)
        mask = stage_mask(rates, T, self.cfg.masking.span_len, generator, valid[:, stage])        # [B, T]
        count = mean_over_ranks(mask.sum()) if self.is_training else mask.sum()
        inputs = corrupt(tokens, stage, mask, self.model.special_token_id)
        model = tp.cast(MagnetLMModel, self.model)

        def loss_of(rows: slice, own: Conditions) -> torch.Tensor:
            with self.autocast:
                logits = model.stage_logits(inputs[rows], own, stage)                             # [B, T, card]
                return masked_cross_entropy(logits, tokens[rows, stage], mask[rows], count)

        loss = self.accumulated_loss(loss_of, B, conditions)
        return loss, {f"ce_q{stage + 1}": loss.detach()}

    def accumulated_loss(self, loss_of: tp.Callable[[slice, Conditions], torch.Tensor], size: int, conditions: Conditions
                         ) -> torch.Tensor:
        """Compute the loss of `size` samples in `optim.accumulate` micro-batches; see `accumulate_gradients`."""
        micro_batches = min(self.cfg.optim.accumulate, size) if self.is_training else 1
        scale = 1.0 if self.scaler is None else self.scaler.get_scale()
        return accumulate_gradients(loss_of, size, conditions, micro_batches, lambda loss: self._scaled(loss).backward(),
                                    scale)

    def optimize(self, loss: torch.Tensor, metrics: dict) -> None:
        """Run the backward pass and one optimizer step.

        Args:
            loss: scalar.
            metrics: dict to add the learning rate and the gradient norm to.

        Raises:
            FloatingPointError: the loss is not finite.
        """
        if not loss.isfinite():
            lower_precision = {"float16": ", or set autocast_dtype=bfloat16", "bfloat16": ", or set autocast=false"}
            remedy = lower_precision.get(str(self.cfg.autocast_dtype), "") if self.cfg.autocast else ""
            raise FloatingPointError(f"the loss is {loss.item()} in epoch {self.epoch}; lower optim.lr (now "
                                     f"{self.optimizer.param_groups[0]['lr']:g}){remedy}")
        metrics["lr"] = self.optimizer.param_groups[0]["lr"]
        if not self.cfg.fsdp.use:
            # Heads of other stages get gradients of zero, so that all ranks reduce the same list and AdamW decays them.
            loss = touch_all(loss, self.model.linears.parameters())
        self._backward(self._scaled(loss))
        if self.scaler is not None:
            self.scaler.unscale_(self.optimizer)
        if self.cfg.optim.max_norm:
            metrics["grad_norm"] = self._clip(self.cfg.optim.max_norm)
        if self.scaler is None:
            self.optimizer.step()
        else:
            self.scaler.step(self.optimizer)
            self.scaler.update()
            metrics["grad_scale"] = self.scaler.get_scale()
        if self.lr_scheduler:
            self.lr_scheduler.step()
        self.optimizer.zero_grad()
        self.deadlock_detect.update("optim")

    def _scaled(self, loss: torch.Tensor) -> torch.Tensor:
        return loss if self.scaler is None else self.scaler.scale(loss)

    def _backward(self, loss: torch.Tensor) -> None:
        if self.cfg.fsdp.use:
            loss.backward()
            fsdp.sync_gradients(self.model)
        elif self.cfg.optim.eager_sync and self.cfg.optim.accumulate == 1:
            # With several micro-batches this would reduce only the gradient of the last one.
            with flashy.distrib.eager_sync_model(self.model):
                loss.backward()
        else:
            loss.backward()
            flashy.distrib.sync_model(self.model)
        self.deadlock_detect.update("backward")

    def _clip(self, max_norm: float) -> torch.Tensor:
        if self.cfg.fsdp.use:
            return fsdp.clip_grad_norm(self.model, max_norm)
        return torch.nn.utils.clip_grad_norm_(self.model.parameters(), max_norm)


class AudioMagnetSolver(MagnetSolver):
    """MagnetSolver on AudioCraft's sound data sets, which mix clips."""
    DATASET_TYPE = upstream.DatasetType.SOUND
