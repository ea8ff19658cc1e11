"""MagnetLMModel: AudioCraft's transformer without the causal mask and with restricted context (section 3)."""
import functools
import typing as tp

import torch
from audiocraft.models.lm import LMModel
from audiocraft.modules.conditioners import ConditioningAttributes
from torch import nn

from ..decoding.known_tokens import KnownTokens
from ..decoding.magnet import Callback, OnStep
from ..decoding.option_types import whole
from ..decoding.options import GenerationOptions, PromptOptions
from ..decoding.random_source import RandomSource, Seed, sample_seeds
from ..decoding.rescoring import Rescorer, Rescoring
from ..modules.context import Band, Context, Full
from ..modules.guidance import GuidedPredictor
from .conditions import ConditionTensors, embed, text_mask
from .generation import Generation, check_arguments, frames, lock_of
from .predictors import compute_dtype, decode, predictor
from .transformer import ContextAttentionLayer, sinusoids


class MagnetLMModel(LMModel):
    """Non-autoregressive transformer over K parallel streams of codec tokens (arXiv 2401.04577).

    State-dict keys and shapes are those of AudioCraft's own `MagnetLMModel`.

    Args:
        subcodes_context: number of frames on either side that codebooks above the first attend to; -1 means all.
        compression_model_framerate: frames per second of the codec.
        segment_duration: length of a training clip in seconds.
        span_len: number of frames in a masked span, in training and decoding.
        attention_backend: `auto`, `xformers` or `torch` (see `attention.attend`).
        **kwargs: arguments of AudioCraft's `LMModel`.
    Raises:
        ValueError: the transformer is causal, or a length is invalid.
    """

    def __init__(self, subcodes_context: int = 5, compression_model_framerate: float = 50,
                 segment_duration: float = 10, span_len: int = 3, attention_backend: str = "auto",
                 **kwargs: tp.Any) -> None:
        if kwargs.get("causal"):
            raise ValueError("transformer_lm.causal=true: MAGNeT attends to both sides; set transformer_lm.causal=false")
        if span_len < 1:
            raise ValueError(f"masking.span_len={span_len} must be at least 1 frame")
        if kwargs.get("past_context") is not None:
            raise ValueError("transformer_lm.past_context is for causal models; use transformer_lm.subcodes_context")
        layer = functools.partial(ContextAttentionLayer, attention_backend=attention_backend)
        super().__init__(layer_class=layer, **kwargs)
        self.attention_backend = attention_backend
        self.subcodes_context = subcodes_context
        self.frame_rate = compression_model_framerate
        self.segment_duration = segment_duration
        self.span_len = span_len

    @property
    def segment_frames(self) -> int:
        """Number of frames T of a training clip."""
        return frames(self.segment_duration, self.frame_rate)

    def context(self, stage: int) -> Context:
        """Which frames attend to which at this stage; a negative stage means all to all."""
        return Full() if stage <= 0 or self.subcodes_context < 0 else Band(self.subcodes_context)

    def hidden(self, sequence: torch.Tensor, condition_tensors: ConditionTensors, context: Context,
               positions: tp.Optional[torch.Tensor] = None) -> torch.Tensor:
        """Run embeddings, transformer and final norm: tokens [B, K, T] -> [B, T, dim].

        AudioCraft's transformer builds positional embeddings in the dtype of its input. In bfloat16 most neighbouring
        frames would get the same one, so they are added here in float32.

        Args:
            sequence: Long [B, K, T].
            condition_tensors: embedded conditions.
            context: which frames attend to which.
            positions: of the frames for the positional embedding, Long [B, T]; 0, 1, ... by default.
        """
        K, T = sequence.shape[1:]
        if self.n_q != K:
            raise ValueError(f"the tokens have {K} codebooks, but the model has {self.n_q}")
        x, cross_source = self.fuser(self.embed_tokens(sequence), condition_tensors)
        if self.transformer.positional_embedding != "rope":
            if positions is None:                 # Prepended conditions have positions too.
                positions = torch.arange(x.shape[1], device=x.device)[None]
            x = x + self.embed_positions(positions)
        x = x.to(self.emb[0].weight.dtype)
        cross = None if cross_source is None else (cross_source, text_mask(condition_tensors, self.fuser))
        for layer in self.transformer.layers:
            x = self.transformer._apply_layer(layer, x, cross_attention_src=cross, src_mask=context)
        x = x[:, -T:]                             # Without prepended conditions.
        return x if self.out_norm is None else self.out_norm(x)

    def embed_tokens(self, sequence: torch.Tensor) -> torch.Tensor:
        """Add up the embeddings of all codebooks in float32: tokens [B, K, T] -> [B, T, dim]."""
        return tp.cast(torch.Tensor, sum(emb(sequence[:, k]).float() for k, emb in enumerate(self.emb)))

    def heads(self, x: torch.Tensor, stage: int, one_head: bool) -> torch.Tensor:
        """Apply the head of `stage`, [B, T, dim] -> [B, T, card], or all heads, -> [B, K, T, card]."""
        return self.linears[stage](x) if one_head else torch.stack([head(x) for head in self.linears], dim=1)

    def forward(self, sequence: torch.Tensor, conditions: tp.Sequence[ConditioningAttributes],
                condition_tensors: tp.Optional[ConditionTensors] = None, stage: int = -1,
                one_head: bool = False) -> torch.Tensor:
        """Compute the logits of all codebooks, as AudioCraft's model does.

        Args:
            sequence: tokens with `special_token_id` where unknown, Long [B, K, T].
            conditions: what to condition on, if `condition_tensors` is not given.
            condition_tensors: embedded conditions.
            stage: codebook that is being predicted; it decides the attention context.
            one_head: only compute the logits of `stage`, [B, T, card].
        Returns:
            Logits [B, K, T, card].
        """
        if condition_tensors is None:
            condition_tensors = self.embed_conditions(list(conditions))
        elif conditions:
            raise ValueError("pass conditions or condition_tensors, not both")
        return self.heads(self.hidden(sequence, condition_tensors, self.context(stage)), stage, one_head)

    @property
    def wrapped(self) -> nn.Module:
        """The module to call for a forward pass: this one, or its FSDP wrapper."""
        return self if self._fsdp is None else self._fsdp

    def stage_logits(self, sequence: torch.Tensor, condition_tensors: ConditionTensors, stage: int) -> torch.Tensor:
        """Compute the logits of one codebook: tokens [B, K, T] -> [B, T, card]."""
        return self.wrapped(sequence, [], condition_tensors, stage=stage, one_head=True)

    def embed_conditions(self, conditions: list[ConditioningAttributes]) -> ConditionTensors:
        """Embed conditions, dropping them as training does."""
        return embed(self, self.att_dropout(self.cfg_dropout(conditions)), guided=False, padding="attended")

    @torch.no_grad()
    def generate(self, prompt: tp.Optional[torch.Tensor] = None,    # type: ignore[override]
                 conditions: tp.Sequence[ConditioningAttributes] = (), num_samples: tp.Optional[int] = None,
                 max_gen_len: int = 256, *, seed: Seed = None, known_tokens: tp.Optional[KnownTokens] = None,
                 negative: tp.Sequence[ConditioningAttributes] = (),
                 callback: tp.Optional[Callback] = None, cfg_coef: None = None, two_step_cfg: None = None,
                 remove_prompts: bool = False, check: bool = False, rescorer: tp.Optional[Rescorer] = None,
                 on_step: tp.Optional[OnStep] = None,
                 **options: tp.Any) -> torch.Tensor:
        """Decode tokens from a text, a prompt, known tokens, or nothing. Threads that share a model take turns.

        Args:
            prompt: first frames of the clip, Long [B, K, P].
            conditions: one entry per sample; none means unconditional.
            num_samples: number of samples B if there are neither conditions nor a prompt.
            max_gen_len: number of frames T, the prompt included.
            seed: one seed, or one per sample; makes the result reproducible on one device, and each sample independent of
                the others (see `sample_seeds`). None continues torch's global random state.
            known_tokens: known tokens anywhere in the clip, instead of `prompt` and `max_gen_len`.
            negative: conditions that guidance leads away from, one per sample, instead of those without a text.
            callback: called with (steps done, steps in all).
            remove_prompts: remove the prompt's frames from the result.
            check: ignored; AudioCraft's `LMModel.generate` has this argument.
            rescorer: the model used if `rescorer_weight` is below 1 (see `magnet_plugin.models.rescorers`).
            on_step: called after each parallel step with (step, its masked frames Bool [B, T]).
            **options: fields of `GenerationOptions`.
        Returns:
            Long [B, K, T].
        Raises:
            ValueError: a setting is invalid; the message names it.
        """
        if cfg_coef is not None or two_step_cfg is not None:
            raise ValueError("cfg_coef and two_step_cfg are MusicGen's; MAGNeT's guidance is set by max_cfg_coef and "
                             "min_cfg_coef, and that of a hybrid model's prompt by prompt_cfg_coef")
        if self.training:
            raise ValueError("generate() needs the model in evaluation mode; call model.eval() first")
        settings, prompt_options = self.read_options(options)
        settings.check_codebooks(self.n_q)
        check_arguments(prompt, known_tokens, conditions, negative, callback, rescorer)
        known = known_tokens or self._known_tokens(prompt, conditions, num_samples, max_gen_len)
        known.check(self.n_q, self.card)
        random = RandomSource.seeded(sample_seeds(seed, len(known.tokens)), known.tokens.device)
        with lock_of(self):
            rescoring = Rescoring.of(rescorer, settings, conditions, len(known.tokens))
            tokens = self.decode(Generation(known, list(conditions), list(negative), settings, prompt_options,
                                            0 if prompt is None else prompt.shape[-1], random, callback, rescoring,
                                            on_step))
        return tokens[..., prompt.shape[-1]:] if remove_prompts and prompt is not None else tokens

    def read_options(self, options: dict[str, tp.Any]) -> tuple[GenerationOptions, PromptOptions]:
        """Check the keyword arguments of `generate` that are decoding settings."""
        return GenerationOptions.read(options), PromptOptions()

    def decode(self, generation: Generation) -> torch.Tensor:
        """Decode in parallel what is not known; returns Long [B, K, T]."""
        predict = predictor(self, generation.conditions, generation.batch, generation.options, generation.negative)
        return self.fill_in(predict, generation.known, generation)

    def fill_in(self, predict: GuidedPredictor, known: KnownTokens, generation: Generation,
                callback: tp.Optional[Callback] = None) -> torch.Tensor:
        """Decode with this model's mask token and spans; `callback` replaces that of the generation."""
        return decode(predict, known, generation.options, mask_id=self.special_token_id, span_len=self.span_len,
                      random=generation.random, callback=callback or generation.callback,
                      describe=lambda: self.describe() + generation.rescoring.note, rescoring=generation.rescoring,
                      on_step=generation.on_step)

    def position_embeddings(self, length: int) -> torch.Tensor:
        """What is added to the embeddings of frames 0 to length - 1, float32 [T, dim]."""
        return self.embed_positions(torch.arange(length, device=next(self.parameters()).device)[None])[0]

    def embed_positions(self, positions: torch.Tensor) -> torch.Tensor:
        """Compute the scaled sinusoidal embeddings of positions: Long [B, T] -> float32 [B, T, dim]."""
        return sinusoids(positions, self.dim, self.transformer.max_period, self.transformer.positional_scale)

    def describe(self) -> str:
        """Return the dtype and attention backend, for error messages."""
        dtype = compute_dtype(next(self.parameters()))
        return f"(dtype {str(dtype).removeprefix('torch.')}, attention backend {self.attention_backend})"

    def _known_tokens(self, prompt: tp.Optional[torch.Tensor], conditions: tp.Sequence[ConditioningAttributes],
                      num_samples: tp.Optional[int], length: int) -> KnownTokens:
        if prompt is None:
            batch = len(conditions) or 1 if num_samples is None else whole("num_samples", num_samples)
            if conditions and batch != len(conditions):
                raise ValueError(f"num_samples={num_samples}, but there are {len(conditions)} conditions")
            device = next(self.parameters()).device
            prompt = torch.zeros(max(batch, 0), self.n_q, 0, dtype=torch.long, device=device)
        if prompt.dim() != 3 or prompt.shape[1] != self.n_q:
            raise ValueError(f"the prompt's tokens must be [B, {self.n_q}, P], got {list(prompt.shape)}")
        if whole("max_gen_len", length) < 1:
            raise ValueError(f"max_gen_len={length} must be at least 1 frame; increase duration")
        return KnownTokens.from_prompt(prompt, length)
