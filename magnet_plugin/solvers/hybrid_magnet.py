"""HybridMagnetSolver: trains one model for both ways of decoding, token by token up to a switch and masked after it."""
import typing as tp

import torch
from omegaconf import DictConfig

from ..distributed.reduction import draws, mean_over_ranks
from ..models import builders
from ..models.lm_hybrid import HybridMagnetLMModel
from ..modules import schedules
from ..modules.hybrid_layout import Layout
from ..modules.hybrid_targets import check_switch, choose_targets, draw_switch, hybrid_loss, prompt_loss
from .magnet import SOLVERS, Batch, MagnetSolver


class HybridMagnetSolver(MagnetSolver):
    """MagnetSolver with a switch per sample, and one loss over what lies before it and what is masked behind it."""

    def __init__(self, cfg: DictConfig) -> None:
        check_switch(cfg.hybrid.switch, cfg.hybrid.parallel)           # a bad setting is told before anything is built
        if not builders.is_hybrid(cfg):
            raise ValueError(f"solver=hybrid_magnet trains lm_model={builders.HYBRID_LM}, not {cfg.lm_model}; set "
                             f"lm_model={builders.HYBRID_LM}")
        prompt = builders.get_prompt_options(cfg)
        super().__init__(cfg)
        self.generation_params = {**self.generation_params, **prompt.plain()}

    def run_step(self, idx: int, batch: Batch, metrics: dict) -> dict:
        """One batch of training or validation. `ce_prompt` is the autoregressive part, `ce_q1`, ... the masked one."""
        condition_tensors, tokens, padding_mask = self._prepare_tokens_and_attributes(batch)
        self.deadlock_detect.update("tokens_and_conditions")
        stage, generator = draws(self.cfg.seed, self.epoch if self.is_training else None, idx, tokens.shape[1],
                                 self.device)
        loss, prompt, masked = self.hybrid_loss(tokens, padding_mask, condition_tensors, stage, generator)
        self.deadlock_detect.update("loss")
        ce = loss.detach()
        if self.is_training:
            self.optimise(loss, metrics)
            ce, prompt, masked = mean_over_ranks(torch.stack([ce, prompt, masked]))
        metrics.update({"ce": ce, "ppl": ce.exp(), "ce_prompt": prompt,
                        f"ce_q{stage + 1}": masked, f"ppl_q{stage + 1}": masked.exp()})
        return metrics

    def hybrid_loss(self, tokens: torch.Tensor, valid: torch.Tensor, condition_tensors: dict, stage: int,
                    generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """The loss, and for reports the means over its autoregressive and its masked tokens.

        Arguments, and what `optim.accumulate` does, are those of `MagnetSolver.loss`.
        """
        (B, K, T), hybrid = tokens.shape, self.cfg.hybrid
        model = tp.cast(HybridMagnetLMModel, self.model)
        rates = schedules.mask_rate(torch.rand(B, generator=generator, device=generator.device)).to(tokens.device)
        switch = draw_switch(B, T, hybrid.switch, generator, hybrid.parallel).to(tokens.device)
        targets = choose_targets(tokens, valid, Layout.of(switch, T, K), stage, rates, self.cfg.masking.span_len,
                                 model.special_token_id, generator)
        counts = mean_over_ranks(targets.counts) if self.is_training else targets.counts
        masked = torch.zeros((), device=tokens.device)

        def loss_of(rows: slice, conditions: dict) -> torch.Tensor:
            with self.autocast:
                part = targets.rows(rows)
                logits = model.joint_logits(part.inputs, conditions, stage, Layout.of(switch[rows], T, K))
                loss, share = hybrid_loss(logits, tokens[rows], part, counts)
            masked.add_(share)
            return loss

        loss = self.in_parts(loss_of, B, condition_tensors)
        return loss, prompt_loss(loss, masked, counts), masked


SOLVERS["hybrid_magnet"] = HybridMagnetSolver
