"""Solver for Hybrid-MAGNeT: one model that decodes token by token up to a switch, and in parallel after it."""
import typing as tp

import torch
from omegaconf import DictConfig

from ..distributed.reduction import Conditions, mean_over_ranks
from ..models import builders
from ..models.lm_hybrid import HybridMagnetLMModel
from ..modules import schedules
from ..modules.hybrid_layout import Layout
from ..modules.hybrid_targets import check_switch, choose_targets, draw_switch, hybrid_loss, prompt_loss
from .magnet import MagnetSolver


class HybridMagnetSolver(MagnetSolver):
    """MagnetSolver that draws a switch for each sample and trains on the tokens before it and on the masked ones after it.

    Raises:
        ValueError: a `hybrid` setting is invalid, or `lm_model` is not the hybrid model.
    """

    def __init__(self, cfg: DictConfig) -> None:
        check_switch(cfg.hybrid.switch, cfg.hybrid.parallel)           # before anything is built
        if not builders.is_hybrid(cfg):
            raise ValueError(f"solver=hybrid_magnet cannot train lm_model={cfg.lm_model}; set lm_model={builders.HYBRID_LM}")
        prompt = builders.get_prompt_options(cfg)
        super().__init__(cfg)
        self.generation_params = {**self.generation_params, **prompt.plain()}

    def compute_loss(self, tokens: torch.Tensor, valid: torch.Tensor, conditions: Conditions, stage: int,
                     generator: torch.Generator) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Compute one mean cross entropy over all targets: the tokens before the switch and the masked ones after it.

        Arguments and gradient accumulation are those of `MagnetSolver.compute_loss`.

        Returns:
            The loss, and its means over the tokens before the switch (`ce_prompt`) and over the masked ones (`ce_q1`, ...).
        """
        (B, K, T), hybrid = tokens.shape, self.cfg.hybrid
        model = tp.cast(HybridMagnetLMModel, self.model)
        rates = schedules.mask_rate(torch.rand(B, generator=generator, device=generator.device)).to(tokens.device)
        switch = draw_switch(B, T, hybrid.switch, generator, hybrid.parallel).to(tokens.device)
        targets = choose_targets(tokens, valid, Layout.of(switch, T, K), stage, rates, self.cfg.masking.span_len,
                                 model.special_token_id, generator)
        counts = mean_over_ranks(targets.counts) if self.is_training else targets.counts
        masked = torch.zeros((), device=tokens.device)

        def loss_of(rows: slice, own: Conditions) -> torch.Tensor:
            with self.autocast:
                part = targets.rows(rows)
                logits = model.joint_logits(part.inputs, own, stage, Layout.of(switch[rows], T, K))
                loss, masked_part = hybrid_loss(logits, tokens[rows], part, counts)
            masked.add_(masked_part)
            return loss

        loss = self.accumulated_loss(loss_of, B, conditions)
        return loss, {"ce_prompt": prompt_loss(loss, masked, counts), f"ce_q{stage + 1}": masked}
