"""HybridMagnetLMModel: one transformer that starts a clip autoregressively and fills in the rest in parallel.

`modules/hybrid_layout.py` describes the sequence that the transformer reads.
"""
import typing as tp

import torch
from audiocraft.models.lm import LMOutput
from audiocraft.modules.conditioners import ConditioningAttributes

from ..decoding.magnet import Callback
from ..decoding.options import GenerationOptions, PromptOptions
from ..decoding.sampling import Sampler
from ..engine.causal import HybridSession
from ..modules.guidance import GuidedPredictor
from ..modules.hybrid_layout import Layout
from .causal import delays_by_codebook
from .conditions import ConditionTensors, embed_branches
from .generation import Generation
from .hybrid_decoder import Columns, HybridDecoder
from .lm_magnet import MagnetLMModel
from .predictors import decode_prompt, fast_session


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
        if not delays_by_codebook(pattern):
            raise ValueError("codebooks_pattern: hybrid models delay codebook k by k frames; set codebooks_pattern.modeling="
                             f"delay and codebooks_pattern.delay.delays={list(range(pattern.n_q))}")
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
        return GenerationOptions.read(options), prompt_options

    def decode(self, generation: Generation) -> torch.Tensor:
        """Decode the prompt autoregressively, then fill in the rest in parallel; returns Long [B, K, T]."""
        prompt, options = generation.prompt_options, generation.options
        if not prompt.frames:
            return super().decode(generation)
        K, T = generation.known.tokens.shape[1:]
        start, last = generation.prompt_length, T + K - 1
        switch = start + prompt.frames if start + prompt.frames < T else last
        total = switch - start + (sum(options.decoding_steps) if switch < last else 0)
        callback = generation.callback

        def report_after(before: int) -> tp.Optional[Callback]:
            return None if callback is None else lambda done, _: callback(before + done, total)

        decoder = self._decoder(generation, switch)
        sampler = Sampler(options.use_sampling, prompt.top_k, random=generation.random)
        known = decode_prompt(decoder, generation.known, switch, prompt, sampler, special=self.special_token_id, start=start,
                              callback=report_after(0), describe=self.describe)
        if switch == last:
            return known.tokens
        predict = GuidedPredictor(decoder, decoder.guided, options.guidance_every)
        return self.fill_in(predict, known, generation, report_after(switch - start))

    def _decoder(self, generation: Generation, switch: int) -> tp.Union[HybridSession, HybridDecoder]:
        """Return the forward passes of a clip: the fast path's, or those of the model itself."""
        options, batch = generation.options, generation.batch
        tensors, guided = embed_branches(self, generation.conditions, batch, generation.negative, options.text_padding)
        length = generation.known.tokens.shape[-1]
        session = fast_session(self, tensors, guided, options.engine, options.precision)
        if session is None:
            return HybridDecoder(self, tensors, batch, guided, switch, length)
        return HybridSession(session, batch, guided, switch, length, self.subcodes_context)
