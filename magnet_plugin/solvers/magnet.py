"""MagnetSolver: AudioCraft's MusicGenSolver with MAGNeT's masking, loss and decoding (paper, section 3.1)."""
import typing as tp
from pathlib import Path

import flashy
import torch
from audiocraft.solvers import builders as upstream
from omegaconf import DictConfig, OmegaConf

from ..data.preflight import preflight
from ..data.token_cache import remember_tokens
from ..distributed import fsdp as sharding
from ..distributed.reduction import draws, loss_in_parts, mean_over_ranks, share_of, touch_all
from ..models import builders, checkpoints
from ..models.lm_magnet import MagnetLMModel
from ..modules import schedules
from ..modules.losses import masked_cross_entropy
from ..modules.masking import corrupt, stage_mask
from .evaluation import Batch, GeneratingSolver
from .preemption import PreemptibleSolver
from .sharding import ShardedSolver


class MagnetSolver(PreemptibleSolver, ShardedSolver, GeneratingSolver):
    """Trains a masked model of audio tokens, one codebook (stage) at a time."""

    def __init__(self, cfg: DictConfig) -> None:
        if not 1 <= cfg.optim.accumulate <= cfg.dataset.batch_size:
            raise ValueError(f"optim.accumulate={cfg.optim.accumulate} must lie between 1 and dataset.batch_size="
                             f"{cfg.dataset.batch_size} (the whole batch, over all ranks)")
        super().__init__(cfg)

    def build_model(self) -> None:
        """Codec, language model, optimiser.

        Raises:
            ValueError: the config does not fit the codec; all mismatches in one message.
        """
        failed: tp.Optional[AssertionError] = None
        try:
            super().build_model()
        except AssertionError as error:
            failed = error
        mismatches = builders.codec_mismatches(self.cfg, self.compression_model)
        if mismatches:
            raise ValueError("the config does not fit the codec " + str(self.cfg.compression_model_checkpoint) + ": "
                             + "; ".join(mismatches)) from failed
        if failed is not None:
            raise failed
        if not self.cfg.fsdp.use:               # ranks have drawn the same weights, but may not rely on it
            flashy.distrib.broadcast_model(self.model)
        if self.cfg.optim.compile:
            for layer in self.model.transformer.layers:
                layer.compile(backend=self.cfg.optim.compile)

    def build_dataloaders(self) -> None:
        """AudioCraft's data loaders, after a look at the manifests: what would spoil the run is logged with its remedy."""
        if flashy.distrib.is_rank_zero():
            wanted = [self.cfg.execute_only] if self.cfg.execute_only else ["train", "valid"]
            folders = {split: Path(self.cfg.datasource[split]) for split in wanted}
            for problem in preflight(folders, self.cfg.dataset.segment_duration,
                                     self.cfg.dataset.batch_size * flashy.distrib.world_size(), self.cfg.sample_rate,
                                     self.cfg.dataset.min_segment_ratio, bool(self.cfg.conditioners)):
                self.logger.warning(problem)
        super().build_dataloaders()
        for name, loader in self.dataloaders.items():
            held = loader.dataset
            if name != "train" and flashy.distrib.is_distributed() and isinstance(held, torch.utils.data.Subset):
                held.indices = share_of(len(tp.cast(tp.Sized, held.dataset)), flashy.distrib.rank(),
                                        flashy.distrib.world_size())

    def load_checkpoints(self, load_best: bool = False, ignore_state_keys: tp.Sequence[str] = ()) -> tp.Optional[dict]:
        if self.cfg.continue_from and self.checkpoint_path(use_fsdp=False).exists():
            self.logger.warning(f"This run goes on from its own checkpoint; continue_from={self.cfg.continue_from} is not "
                                "read again. Give label=NAME to start anew from it.")
        return super().load_checkpoints(load_best, list(ignore_state_keys))

    def load_state_dict(self, state: dict) -> None:
        weights = (state.get("fsdp_best_state") or state.get("best_state") or {}).get("model")
        if weights and not self.cfg.fsdp.use:               # a shard has other shapes
            checkpoints.check_weights(self.model, weights, self.cfg.continue_from or self.checkpoint_path())
        super().load_state_dict(state)

    def load_from_pretrained(self, name: str) -> dict:
        return {"best_state": {"model": checkpoints.load_package(name, checkpoints.LM_FILE)["best_state"]}}

    def run_step(self, idx: int, batch: Batch, metrics: dict) -> dict:
        """One batch of training or validation: fill `metrics`."""
        condition_tensors, tokens, padding_mask = self._prepare_tokens_and_attributes(batch)
        self.deadlock_detect.update("tokens_and_conditions")
        stage, generator = draws(self.cfg.seed, self.epoch if self.is_training else None, idx, tokens.shape[1],
                                 self.device)
        loss = self.loss(tokens, padding_mask, condition_tensors, stage, generator)
        self.deadlock_detect.update("loss")
        metrics["ce"] = loss.detach()
        if self.is_training:
            self.optimise(loss, metrics)
            metrics["ce"] = mean_over_ranks(metrics["ce"])
        metrics["ppl"] = metrics["ce"].exp()
        metrics[f"ce_q{stage + 1}"] = metrics["ce"]
        metrics[f"ppl_q{stage + 1}"] = metrics["ppl"]
        return metrics

    def loss(self, tokens: torch.Tensor, valid: torch.Tensor, condition_tensors: dict, stage: int,
             generator: torch.Generator) -> torch.Tensor:
        """Cross entropy of the masked frames of codebook `stage`, in nats.

        In training it is a mean over the masked frames of all ranks together: a rank's sum is divided by the ranks' mean
        number of them, so that the mean of the ranks' gradients is the gradient of one rank with the whole batch. With
        `optim.accumulate` above 1, all but a part of the batch has left its gradient when this returns.

        Args:
            tokens: Long [B, K, T].
            valid: Bool [B, K, T], False on padding.
            condition_tensors: embedded conditions.
            stage: codebook to train.
            generator: source of the masks.
        """
        B, _, T = tokens.shape
        rates = schedules.mask_rate(torch.rand(B, generator=generator, device=generator.device)).to(tokens.device)
        mask = stage_mask(rates, T, self.cfg.masking.span_len, generator, valid[:, stage])        # [B, T]
        count = mean_over_ranks(mask.sum()) if self.is_training else mask.sum()
        shown = corrupt(tokens, stage, mask, self.model.special_token_id)
        model = tp.cast(MagnetLMModel, self.model)

        def loss_of(rows: slice, conditions: dict) -> torch.Tensor:
            with self.autocast:
                logits = model.stage_logits(shown[rows], conditions, stage)                       # [B, T, card]
                return masked_cross_entropy(logits, tokens[rows, stage], mask[rows], count)

        return self.in_parts(loss_of, B, condition_tensors)

    def in_parts(self, loss_of: tp.Callable[[slice, dict], torch.Tensor], size: int, conditions: dict) -> torch.Tensor:
        """The loss of a batch of `size` samples, in `optim.accumulate` parts; see `training.loss_in_parts`."""
        parts = min(self.cfg.optim.accumulate, size) if self.is_training else 1
        scale = 1.0 if self.scaler is None else self.scaler.get_scale()
        return loss_in_parts(loss_of, size, conditions, parts, lambda loss: self._scaled(loss).backward(), scale)

    def optimise(self, loss: torch.Tensor, metrics: dict) -> None:
        """One step of the optimiser on a scalar loss; notes learning rate and gradient norm.

        Raises:
            FloatingPointError: the loss is not finite.
        """
        if not loss.isfinite():
            raise FloatingPointError(f"the loss is {float(loss)} in epoch {self.epoch}: lower optim.lr, or train in "
                                     "autocast_dtype=bfloat16")
        metrics["lr"] = self.optimizer.param_groups[0]["lr"]
        if not self.cfg.fsdp.use:
            # Heads of other stages take part with zero gradients: every rank reduces the same list, and AdamW decays them.
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
            sharding.sync(self.model)
        elif self.cfg.optim.eager_sync and self.cfg.optim.accumulate == 1:     # it would send the last part's gradient alone
            with flashy.distrib.eager_sync_model(self.model):
                loss.backward()
        else:
            loss.backward()
            flashy.distrib.sync_model(self.model)
        self.deadlock_detect.update("backward")

    def _clip(self, max_norm: float) -> torch.Tensor:
        if self.cfg.fsdp.use:
            return sharding.clip_grad_norm(self.model, max_norm)
        return torch.nn.utils.clip_grad_norm_(self.model.parameters(), max_norm)


class AudioMagnetSolver(MagnetSolver):
    """MAGNeT for sound effects: the same on AudioCraft's sound data sets, which mix clips."""
    DATASET_TYPE = upstream.DatasetType.SOUND


SOLVERS: dict[str, type] = {"magnet": MagnetSolver, "audio_magnet": AudioMagnetSolver}


def get_solver(cfg: DictConfig, fallback: tp.Callable[[DictConfig], tp.Any]) -> tp.Any:
    """This plugin's solver where `cfg.solver` names one, else what `fallback` builds; either with `cache.tokens`."""
    klass = SOLVERS.get(cfg.solver)
    solver = fallback(cfg) if klass is None else klass(cfg)
    folder = OmegaConf.select(cfg, "cache.tokens")
    if folder:
        remember_tokens(solver.compression_model, folder)
    return solver
