"""HybridMagnetLMModel: one transformer that writes token by token up to a switch and fills in the rest (see hybrid.py)."""
import dataclasses
import typing as tp

import torch
from audiocraft.models.lm import LMOutput
from audiocraft.modules.conditioners import ConditioningAttributes
from audiocraft.modules.transformer import StreamingMultiheadAttention, create_sin_embedding
from torch import nn

from .attention import Context, Full
from .hybrid import Layout
from .lm import ConditionTensors, ContextAttentionLayer, MagnetLMModel, project


@dataclasses.dataclass(eq=False)
class Past(Context):
    """A context over columns that were computed before and those at hand; it keeps their keys and values by layer.

    Attributes:
        context: what the columns at hand attend to, among all.
        memory: keys and values [B, H, columns so far, d] of each layer's attention.
        keep: remember the columns at hand as well.
    """
    context: Context
    memory: dict[nn.Module, tuple[torch.Tensor, torch.Tensor]] = dataclasses.field(default_factory=dict)
    keep: bool = True

    def dense(self, num_queries: int, num_keys: int, device: tp.Any = None) -> torch.Tensor:
        return self.context.dense(num_queries, num_keys, device)

    def extend(self, owner: nn.Module, k: torch.Tensor, v: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Keys and values of all columns, given those at hand."""
        if owner in self.memory:
            old_k, old_v = self.memory[owner]
            k, v = torch.cat([old_k, k], dim=2), torch.cat([old_v, v], dim=2)
        if self.keep:
            self.memory[owner] = k, v
        return k, v


class RememberingLayer(ContextAttentionLayer):
    """A layer whose self-attention goes on from a `Past`."""

    def _attention(self, weights: StreamingMultiheadAttention, queries: torch.Tensor, keys: torch.Tensor,
                   context: Context) -> torch.Tensor:
        if not isinstance(context, Past):
            return super()._attention(weights, queries, keys, context)
        q, k, v = project(weights, queries, keys)
        return self._weigh(weights, q, *context.extend(weights, k, v), context.context)


@dataclasses.dataclass(frozen=True, eq=False)
class Columns:
    """Where the columns of a forward pass stand.

    Attributes:
        positions: Long [B, C].
        context: what they attend to.
    """
    positions: torch.Tensor
    context: Context


class HybridMagnetLMModel(MagnetLMModel):
    """Hybrid-MAGNeT. Its weights have the names and shapes of a MusicGen's and a MAGNeT's of the same size.

    Args:
        **kwargs: those of `MagnetLMModel`.
    Raises:
        ValueError: a setting under which the two ways of decoding cannot share one sequence.
    """
    layer_class = RememberingLayer

    def __init__(self, **kwargs: tp.Any) -> None:
        kind = kwargs.get("positional_embedding", "sin")
        if kind != "sin":
            raise ValueError(f"transformer_lm.positional_embedding={kind}: a hybrid model gives its columns positions of "
                             "their own; set transformer_lm.positional_embedding=sin")
        fuse, pattern = kwargs["fuser"].fuse2cond, kwargs["pattern_provider"]
        for how in ("prepend", "input_interpolate"):
            if fuse.get(how):
                raise ValueError(f"fuser.{how}={list(fuse[how])}: a hybrid model has no place for it; set fuser.{how}=[] "
                                 "and use fuser.cross or fuser.sum")
        delays = list(range(pattern.n_q))
        if [getattr(pattern, name, None) for name in ("delays", "flatten_first", "empty_initial")] != [delays, 0, 0]:
            raise ValueError("codebooks_pattern: a hybrid model delays codebook k by k frames; set "
                             f"codebooks_pattern.modeling=delay and codebooks_pattern.delay.delays={delays}")
        super().__init__(**kwargs)

    def forward(self, sequence: torch.Tensor, conditions: tp.Sequence[ConditioningAttributes],
                condition_tensors: tp.Optional[ConditionTensors] = None, stage: int = -1, one_head: bool = False,
                columns: tp.Optional[Columns] = None) -> torch.Tensor:
        """As `MagnetLMModel.forward`; with `columns`, `sequence` [B, K, C] is what those hold, and logits are by column."""
        if columns is None:
            return super().forward(sequence, conditions, condition_tensors, stage, one_head)
        if condition_tensors is None or conditions:
            raise ValueError("a pass by columns takes condition_tensors, and no conditions")
        x = tp.cast(torch.Tensor, sum(emb(sequence[:, k]) for k, emb in enumerate(self.emb)))
        x, cross_source = self.fuser(x, condition_tensors)
        transformer = self.transformer
        x = x + transformer.positional_scale * create_sin_embedding(
            columns.positions[..., None], self.dim, max_period=transformer.max_period, dtype=x.dtype)
        for layer in transformer.layers:
            x = transformer._apply_layer(layer, x, cross_attention_src=cross_source, src_mask=columns.context)
        x = x if self.out_norm is None else self.out_norm(x)
        if one_head:
            return self.linears[stage](x)
        return torch.stack([head(x) for head in self.linears], dim=1)

    def column_logits(self, sequence: torch.Tensor, condition_tensors: ConditionTensors, columns: Columns, stage: int = -1,
                      one_head: bool = False) -> torch.Tensor:
        """Logits by column, [B, K, C, card], or [B, C, card] of the stage's head alone."""
        model: nn.Module = self if self._fsdp is None else self._fsdp
        return model(sequence, [], condition_tensors, stage=stage, one_head=one_head, columns=columns)

    def joint_logits(self, shown: torch.Tensor, condition_tensors: ConditionTensors, stage: int, layout: Layout
                     ) -> torch.Tensor:
        """Logits of all tokens in one pass: next-token predictions in the prefix, those of the stage after it.

        Args:
            shown: tokens with the special token where hidden, Long [B, K, T].
            condition_tensors: embedded conditions.
            stage: codebook that is predicted in parallel; it decides the context after the prefix.
            layout: where the prefix ends.
        Returns:
            [B, K, T, card].
        """
        columns = Columns(layout.positions, layout.context(stage, self.subcodes_context))
        return layout.realign(self.column_logits(layout.place(shown, self.special_token_id), condition_tensors, columns))

    def compute_predictions(self, codes: torch.Tensor, conditions: list[ConditioningAttributes],
                            condition_tensors: tp.Optional[ConditionTensors] = None, stage: int = -1,
                            keep_only_valid_steps: bool = True) -> LMOutput:
        """Next-token logits of a whole clip, as AudioCraft's `LMModel` gives them: the model as a MusicGen.

        Without `keep_only_valid_steps` all T + K - 1 steps are predicted; with it the last k frames of codebook k are
        NaN and masked.
        """
        if condition_tensors is None:
            condition_tensors = self.embed_conditions(list(conditions), dropout=True)
        B, K, T = codes.shape
        layout = Layout.single(T if keep_only_valid_steps else T + K - 1, B, T, K, codes.device)
        logits = self.joint_logits(codes, condition_tensors, 0, layout)
        return LMOutput(logits.masked_fill(~layout.prefix[..., None], float("nan")), layout.prefix)


__all__ = ["Columns", "Full", "HybridMagnetLMModel", "Past", "RememberingLayer"]
