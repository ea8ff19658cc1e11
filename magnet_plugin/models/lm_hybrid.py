"""HybridMagnetLMModel: one transformer that starts a clip autoregressively and fills in the rest in parallel.

`modules/hybrid_layout.py` describes the sequence that the transformer reads.
"""
import dataclasses
import typing as tp

import torch
from audiocraft.models.lm import LMOutput
from audiocraft.modules.conditioners import ConditioningAttributes
from torch.nn import functional as F

from ..decoding.autoregressive import decode_prompt
from ..decoding.magnet import Callback
from ..decoding.options import GenerationOptions, PromptOptions
from ..modules.context import Context, Full
from ..modules.guidance import GuidedPredictor, for_branches, guide_branches
from ..modules.hybrid_layout import Layout
from ..modules.tokens import gather_frames
from .conditions import ConditionTensors, embed_branches, rows_of
from .generation import Generation
from .lm_magnet import MagnetLMModel
from .transformer import KVCache


@dataclasses.dataclass(frozen=True, eq=False)
class Columns:
    """Positions and attention context of the columns of a forward pass.

    Attributes:
        positions: for the positional embedding, Long [B, C].
        context: what the columns attend to.
    """
    positions: torch.Tensor
    context: Context


class HybridMagnetLMModel(MagnetLMModel):
    """Hybrid-MAGNeT. Its weights have the names and shapes of a MusicGen and of a MAGNeT of the same size.

    Args:
        **kwargs: arguments of `MagnetLMModel`.
    Raises:
        ValueError: a setting does not allow both ways of decoding to share one sequence.
    """

    def __init__(self, **kwargs: tp.Any) -> None:
        kind = kwargs.get("positional_embedding", "sin")
        if kind != "sin":
            raise ValueError(f"transformer_lm.positional_embedding={kind}: hybrid models support only sinusoidal positions; "
                             "set transformer_lm.positional_embedding=sin")
        fuse, pattern = kwargs["fuser"].fuse2cond, kwargs["pattern_provider"]
        for how in ("prepend", "input_interpolate"):
            if fuse.get(how):
                raise ValueError(f"fuser.{how}={list(fuse[how])}: hybrid models do not support it; set fuser.{how}=[] "
                                 "and use fuser.cross or fuser.sum")
        delays = list(range(pattern.n_q))
        if [getattr(pattern, name, None) for name in ("delays", "flatten_first", "empty_initial")] != [delays, 0, 0]:
            raise ValueError("codebooks_pattern: hybrid models delay codebook k by k frames; set "
                             f"codebooks_pattern.modeling=delay and codebooks_pattern.delay.delays={delays}")
        super().__init__(**kwargs)

    def forward(self, sequence: torch.Tensor, conditions: tp.Sequence[ConditioningAttributes],
                condition_tensors: tp.Optional[ConditionTensors] = None, stage: int = -1, one_head: bool = False,
                columns: tp.Optional[Columns] = None) -> torch.Tensor:
        """Run `MagnetLMModel.forward`; with `columns`, `sequence` [B, K, C] is their content, and logits are by column."""
        if columns is None:
            return super().forward(sequence, conditions, condition_tensors, stage, one_head)
        if condition_tensors is None or conditions:
            raise ValueError("`columns` requires `condition_tensors`, without `conditions`")
        x = self.hidden(sequence, condition_tensors, columns.context, columns.positions)
        return self.heads(x, stage, one_head)

    def column_logits(self, sequence: torch.Tensor, condition_tensors: ConditionTensors, columns: Columns, stage: int = -1,
                      one_head: bool = False) -> torch.Tensor:
        """Compute logits by column: [B, K, C, card], or [B, C, card] with `one_head`."""
        return self.wrapped(sequence, [], condition_tensors, stage=stage, one_head=one_head, columns=columns)

    def joint_logits(self, inputs: torch.Tensor, condition_tensors: ConditionTensors, stage: int, layout: Layout
                     ) -> torch.Tensor:
        """Compute the logits of all tokens in one pass: next-token predictions in the prefix, masked ones after it.

        Args:
            inputs: tokens with the special token where hidden, Long [B, K, T].
            condition_tensors: embedded conditions.
            stage: codebook that is predicted in parallel; it decides the context after the prefix.
            layout: where the prefix ends.
        Returns:
            [B, K, T, card].
        """
        columns = Columns(layout.positions, layout.context(stage, self.subcodes_context))
        return layout.realign(self.column_logits(layout.place(inputs, self.special_token_id), condition_tensors, columns))

    def compute_predictions(self, codes: torch.Tensor, conditions: list[ConditioningAttributes],
                            condition_tensors: tp.Optional[ConditionTensors] = None, stage: int = -1,
                            keep_only_valid_steps: bool = True) -> LMOutput:
        """Compute the next-token logits of a whole clip, as AudioCraft's `LMModel` does: the model as a MusicGen.

        Without `keep_only_valid_steps`, all T + K - 1 steps are predicted; with it, the last k frames of codebook k are
        NaN and masked.
        """
        if condition_tensors is None:
            condition_tensors = self.embed_conditions(list(conditions))
        B, K, T = codes.shape
        layout = Layout.single(T if keep_only_valid_steps else T + K - 1, B, T, K, codes.device)
        logits = self.joint_logits(codes, condition_tensors, 0, layout)
        return LMOutput(logits.masked_fill(~layout.prefix[..., None], float("nan")), layout.prefix)

    def generate(self, prompt: tp.Optional[torch.Tensor] = None,    # type: ignore[override]
                 conditions: tp.Sequence[ConditioningAttributes] = (), num_samples: tp.Optional[int] = None,
                 max_gen_len: int = 256, *, prompt_frames: int = PromptOptions.frames,
                 prompt_cfg_coef: float = PromptOptions.cfg_coef, prompt_temperature: float = PromptOptions.temperature,
                 prompt_top_k: int = PromptOptions.top_k, **kwargs: tp.Any) -> torch.Tensor:
        """Decode tokens as `MagnetLMModel.generate` does, the first frames of them autoregressively.

        Args:
            prompt_frames: number of frames to decode autoregressively, after those of `prompt`; 0 decodes like a plain
                MAGNeT. If they reach the end of the clip, all of it is decoded autoregressively. Known tokens are kept.
            prompt_cfg_coef: guidance scale of these frames.
            prompt_temperature: softmax temperature of these frames.
            prompt_top_k: sample them from the k most likely tokens; 0 uses all.
            **kwargs: further arguments of `MagnetLMModel.generate`.
        Returns:
            Long [B, K, T].
        """
        return super().generate(prompt, conditions, num_samples, max_gen_len, prompt_options=PromptOptions(
            prompt_frames, prompt_cfg_coef, prompt_temperature, prompt_top_k), **kwargs)

    def read_options(self, options: dict[str, tp.Any]) -> tuple[GenerationOptions, PromptOptions]:
        prompt_options = options.pop("prompt_options")
        settings = GenerationOptions(**options)
        if prompt_options.frames and (settings.engine == "lean" or settings.precision != "model"):
            raise ValueError(f"engine={settings.engine}, precision={settings.precision}: the fast path does not decode "
                             "after an autoregressive prompt; set engine=auto and precision=model, or prompt_duration=0")
        return settings, prompt_options

    def decode(self, generation: Generation) -> torch.Tensor:
        """Decode the prompt autoregressively, then fill in the rest in parallel; returns Long [B, K, T]."""
        prompt, options = generation.prompt_options, generation.options
        if not prompt.frames:
            return super().decode(generation)
        K, T = generation.known.tokens.shape[1:]
        switch, last = generation.prompt_length + prompt.frames, T + K - 1
        switch = last if switch >= T else switch
        total = switch + (sum(options.decoding_steps) if switch < last else 0)
        callback = generation.callback

        def report_after(before: int) -> tp.Optional[Callback]:
            return None if callback is None else lambda done, _: callback(before + done, total)

        decoder = HybridDecoder(self, generation.conditions, generation.batch, switch, T, generation.negative,
                                options.text_padding)
        known = decode_prompt(decoder.next_logits, generation.known, switch, prompt, special=self.special_token_id,
                              use_sampling=options.use_sampling, random=generation.random,
                              callback=report_after(0), describe=self.describe)
        if switch == last:
            return known.tokens
        predict = GuidedPredictor(decoder.forward, decoder.guided, options.guidance_every)
        return self.fill_in(predict, known, generation, report_after(switch))


class HybridDecoder:
    """The forward passes of one clip, with a KV cache of the columns before the switch.

    Args:
        model: the model.
        conditions: one entry per sample; none means unconditional.
        batch: number of samples B.
        switch: number of autoregressive steps n.
        length: number of frames T.
        negative, padding: see `conditions.embed`.
    Raises:
        ValueError: the number of conditions is wrong, or there is no such step.
    """

    def __init__(self, model: HybridMagnetLMModel, conditions: list[ConditioningAttributes], batch: int, switch: int,
                 length: int, negative: tp.Sequence[ConditioningAttributes] = (), padding: str = "masked") -> None:
        self.model, self.switch, self.steps = model, switch, 0
        self.tensors, self.guided = embed_branches(model, conditions, batch, negative, padding)
        device = next(model.parameters()).device
        self.layout = Layout.single(switch, batch * (1 + self.guided), length, model.n_q, device)
        self.cache = KVCache(Full())
        # The mask is shared by all rows. The first stage attends to everything and needs none.
        one = Layout.single(switch, 1, length, model.n_q, device)
        width = model.subcodes_context
        self.contexts = [Full() if k == 0 or width < 0 else one.context(k, width) for k in range(model.n_q)]

    def next_logits(self, column: torch.Tensor, scale: float) -> torch.Tensor:
        """Predict the next step from the column [B, K] before it; returns guided logits [B, K, card]."""
        if self.steps >= self.switch:
            raise ValueError(f"next_logits() was called more than {self.switch} times")
        columns = Columns(self.layout.positions[:, self.steps:self.steps + 1], self.cache)
        sequence = for_branches(column, self.guided)[..., None]
        logits = self.model.column_logits(sequence, self.tensors, columns)[:, :, 0].float()
        self.steps += 1
        # Both branches are always computed: the parallel steps need the cache of both.
        return guide_branches(logits, scale) if self.guided else logits

    def forward(self, tokens: torch.Tensor, stage: int, frames: torch.Tensor, both_branches: bool) -> torch.Tensor:
        """Predict codebook `stage` at some frames; this is a `guidance.Forward`.

        Args:
            tokens: Long [B, K, T], the special token where unknown.
            stage: the codebook.
            frames: Long [B, M].
            both_branches: compute the unconditional branch too.
        Returns:
            [B, M, card], or [2 B, M, card]; zero for frames without a column of their own, which are known.
        """
        if self.steps != self.switch:
            raise ValueError(f"decode all {self.switch} prompt steps first; only {self.steps} are decoded")
        tokens, frames = for_branches(tokens, both_branches), for_branches(frames, both_branches)
        layout = dataclasses.replace(self.layout, switch=self.layout.switch[:len(tokens)])
        context = KVCache(self.contexts[stage], self.cache.entries, frozen=True)
        columns = Columns(layout.positions[:, self.switch:], context)
        sequence = layout.place(tokens, self.model.special_token_id)[..., self.switch:]
        logits = self.model.column_logits(sequence, rows_of(self.tensors, len(tokens)), columns, stage, one_head=True)
        return gather_frames(F.pad(logits, (0, 0, tokens.shape[-1] - logits.shape[1], 0)), frames)
