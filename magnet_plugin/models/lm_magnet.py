"""MagnetLMModel: AudioCraft's transformer without the causal mask, restricted in context by stage (paper, section 3)."""
import functools
import logging
import math
import typing as tp

import torch
from audiocraft.models.lm import LMModel
from audiocraft.modules.conditioners import ClassifierFreeGuidanceDropout, ConditioningAttributes, ConditionType
from audiocraft.modules.transformer import create_sin_embedding
from torch import nn

from ..decoding.magnet import Given, decode
from ..decoding.options import GenerationOptions
from ..decoding.rescoring import Rescorer, Rescoring
from ..engine.weights import NotLean, engine_for
from ..modules.attention import Band, Context, Full
from ..modules.guidance import Forward, Guide
from .transformer import ContextAttentionLayer

logger = logging.getLogger(__name__)
ConditionTensors = dict[str, ConditionType]


def frames(seconds: float, frame_rate: float) -> int:
    """Seconds as whole codec frames, rounded up as AudioCraft's solvers do; training and generation both ask here.

    >>> frames(10, 50), frames(2.51, 50), frames(0.3, 50)
    (500, 126, 15)
    """
    return math.ceil(round(seconds * frame_rate, 6))


class MagnetLMModel(LMModel):
    """Non-autoregressive transformer over K parallel streams of codec tokens (arXiv 2401.04577).

    State-dict keys and shapes are those of AudioCraft's own `MagnetLMModel`.

    Args:
        subcodes_context: frames that codebooks above the first attend to on either side; -1 means all.
        compression_model_framerate: frames per second of the codec.
        segment_duration: seconds of a training clip.
        span_len: frames in a masked span, in training and decoding.
        attention_backend: `auto`, `xformers` or `torch` (see `attention.attend`).
        **kwargs: arguments of AudioCraft's `LMModel`.
    Raises:
        ValueError: the transformer is causal, or a length makes no sense.
    """

    layer_class: type[ContextAttentionLayer] = ContextAttentionLayer

    def __init__(self, subcodes_context: int = 5, compression_model_framerate: float = 50,
                 segment_duration: float = 10, span_len: int = 3, attention_backend: str = "auto",
                 **kwargs: tp.Any) -> None:
        if kwargs.get("causal"):
            raise ValueError("transformer_lm.causal=true: MAGNeT attends to both sides; set transformer_lm.causal=false")
        if span_len < 1:
            raise ValueError(f"masking.span_len={span_len} must be at least 1 frame")
        if kwargs.get("past_context") is not None:
            raise ValueError("transformer_lm.past_context is for causal models; use transformer_lm.subcodes_context")
        layer = functools.partial(self.layer_class, attention_backend=attention_backend)
        super().__init__(layer_class=layer, **kwargs)
        self.attention_backend = attention_backend
        self.subcodes_context = subcodes_context
        self.frame_rate = compression_model_framerate
        self.segment_duration = segment_duration
        self.span_len = span_len

    @property
    def segment_frames(self) -> int:
        """Frames T of a training clip."""
        return frames(self.segment_duration, self.frame_rate)

    def context(self, stage: int) -> Context:
        """Which frames attend to which at this stage; a stage below 0 means all to all."""
        return Full() if stage <= 0 or self.subcodes_context < 0 else Band(self.subcodes_context)

    def hidden(self, sequence: torch.Tensor, condition_tensors: ConditionTensors, stage: int) -> torch.Tensor:
        """Output of the transformer, normed: tokens [B, K, T] -> [B, T, dim]."""
        K, T = sequence.shape[1:]
        if self.n_q != K:
            raise ValueError(f"the tokens have {K} codebooks, but the model {self.n_q}")
        x = sum(emb(sequence[:, k]) for k, emb in enumerate(self.emb))
        x, cross_source = self.fuser(x, condition_tensors)
        x = self.transformer(x, cross_attention_src=cross_source, src_mask=self.context(stage))
        x = x[:, -T:]                             # without prepended conditions
        return x if self.out_norm is None else self.out_norm(x)

    def forward(self, sequence: torch.Tensor, conditions: tp.Sequence[ConditioningAttributes],
                condition_tensors: tp.Optional[ConditionTensors] = None, stage: int = -1,
                one_head: bool = False) -> torch.Tensor:
        """Logits of all codebooks, as AudioCraft's model gives them.

        Args:
            sequence: tokens with `special_token_id` where unknown, Long [B, K, T].
            conditions: what to condition on; or give `condition_tensors`.
            condition_tensors: embedded conditions.
            stage: codebook that is being predicted; it decides the context.
            one_head: give the logits of `stage` alone, [B, T, card].
        Returns:
            Logits [B, K, T, card].
        """
        if condition_tensors is None:
            condition_tensors = self.embed_conditions(list(conditions), dropout=True)
        elif conditions:
            raise ValueError("give conditions or condition_tensors, not both")
        x = self.hidden(sequence, condition_tensors, stage)
        if one_head:
            return self.linears[stage](x)
        return torch.stack([head(x) for head in self.linears], dim=1)

    def stage_logits(self, sequence: torch.Tensor, condition_tensors: ConditionTensors, stage: int) -> torch.Tensor:
        """Logits of one codebook, its head alone: tokens [B, K, T] -> [B, T, card]."""
        model: nn.Module = self if self._fsdp is None else self._fsdp
        return model(sequence, [], condition_tensors, stage=stage, one_head=True)

    def embed_conditions(self, conditions: list[ConditioningAttributes], dropout: bool = False) -> ConditionTensors:
        """Embed conditions; with `dropout`, drop them as training does."""
        if dropout:
            conditions = self.att_dropout(self.cfg_dropout(conditions))
        return self.condition_provider(self.condition_provider.tokenize(conditions))

    @torch.no_grad()
    def generate(self, prompt: tp.Optional[torch.Tensor] = None,    # type: ignore[override]
                 conditions: tp.Sequence[ConditioningAttributes] = (), num_samples: tp.Optional[int] = None,
                 max_gen_len: int = 256, *, seed: tp.Optional[int] = None, given: tp.Optional[Given] = None,
                 callback: tp.Optional[tp.Callable[[int, int], None]] = None, cfg_coef: None = None,
                 two_step_cfg: None = None, remove_prompts: bool = False, check: bool = False,
                 rescorer: tp.Optional[Rescorer] = None, **options: tp.Any) -> torch.Tensor:
        """Decode tokens from text, a prompt, known tokens, or nothing.

        Args:
            prompt: first frames of the clip, Long [B, K, P].
            conditions: one entry per sample; none means unconditional.
            num_samples: number of samples where there are neither conditions nor prompt.
            max_gen_len: frames T to decode, the prompt included.
            seed: makes the result reproducible on one device; None continues torch's own random state.
            given: known tokens anywhere in the clip, in place of `prompt` and `max_gen_len`.
            callback: called with (steps done, steps in all).
            remove_prompts: cut the prompt's frames off the result.
            rescorer: a model to be asked where `rescorer_weight` is below 1 (see `magnet_plugin.models.rescorers`).
            **options: fields of `GenerationOptions`.
        Returns:
            Long [B, K, T].
        Raises:
            ValueError: a setting that cannot work, named.
        """
        if cfg_coef is not None or two_step_cfg is not None:
            raise ValueError("cfg_coef and two_step_cfg are MusicGen's; MAGNeT's guidance is set by max_cfg_coef and "
                             "min_cfg_coef")
        settings = GenerationOptions(**options)
        if self.training:
            raise ValueError("generate() needs the model in evaluation mode; call model.eval() first")
        given = given or self._given(prompt, conditions, num_samples, max_gen_len)
        device = given.tokens.device
        generator = None if seed is None else torch.Generator(device).manual_seed(seed)
        rescoring = Rescoring.of(rescorer, settings, conditions, len(given.tokens))
        tokens = decode(self.predictor(list(conditions), len(given.tokens), settings), given, settings,
                        mask_id=self.special_token_id, span_len=self.span_len, generator=generator, callback=callback,
                        describe=lambda: self._describe() + (", MAGNeT's or the rescorer's" if rescoring else ""),
                        rescoring=rescoring)
        return tokens[..., prompt.shape[-1]:] if remove_prompts and prompt is not None else tokens

    def predictor(self, conditions: list[ConditioningAttributes], batch: int, options: GenerationOptions) -> Guide:
        """`predict(tokens [B, K, T], stage, guidance) -> logits [B, T, card]`, float32, classifier-free guidance applied.

        Conditional and null conditions are embedded together, as upstream does: padding changes numbers.
        """
        if conditions and len(conditions) != batch:
            raise ValueError(f"{len(conditions)} conditions (descriptions) for {batch} samples; give one per sample")
        guided = bool(conditions)
        null = ClassifierFreeGuidanceDropout(p=1.0)(conditions) if guided else self._null_conditions(batch)
        tensors = self.embed_conditions(conditions + null if guided else null)
        forward = self._lean_forward(tensors, guided, options) or self._plain_forward(tensors, guided)
        return Guide(forward, guided, options.guidance_every)

    def _plain_forward(self, tensors: ConditionTensors, guided: bool) -> Forward:
        """The model's own forward pass, for `Guide`."""
        def forward(tokens: torch.Tensor, stage: int, positions: torch.Tensor, both: bool) -> torch.Tensor:
            rows = len(tokens) * (1 + both)
            conditions = {name: (value[:rows], mask[:rows]) for name, (value, mask) in tensors.items()}
            tokens, positions = (tokens.repeat(2, 1, 1), positions.repeat(2, 1)) if both else (tokens, positions)
            logits = self.stage_logits(tokens, conditions, stage)
            return logits.gather(1, positions[..., None].expand(-1, -1, logits.shape[-1]))

        return forward

    def _lean_forward(self, tensors: ConditionTensors, guided: bool, options: GenerationOptions) -> tp.Optional[Forward]:
        """The engine's forward pass, None where it is not asked for or, with engine=auto, does not serve this model."""
        if options.engine == "plain":
            return None
        weight = next(self.parameters())
        autocast = torch.is_autocast_enabled(weight.device.type)
        dtype = torch.get_autocast_dtype(weight.device.type) if autocast else weight.dtype
        try:
            engine = engine_for(self, options.precision, dtype)
        except NotLean as error:
            if options.engine == "lean" or options.precision != "model":
                raise ValueError(f"engine={options.engine}, precision={options.precision}: {error}; set engine=plain and "
                                 "precision=model") from None
            logger.info("%s; decoding takes the model's own forward pass (engine=plain)", error)
            return None
        rows = len(next(iter(tensors.values()))[0]) if tensors else 0
        _, source = self.fuser(weight.new_zeros(rows, 1, self.dim), tensors)
        if source is None:
            return engine.session(None)
        source = source.to(weight.dtype)
        return engine.session(*source.chunk(2)) if guided else engine.session(source)

    def position_embeddings(self, length: int) -> torch.Tensor:
        """What is added to the embeddings of frames 0 to length - 1, [T, dim]."""
        weight, body = next(self.parameters()), self.transformer
        places = torch.arange(length, device=weight.device).view(1, -1, 1)
        embedding = create_sin_embedding(places, self.dim, max_period=body.max_period, dtype=weight.dtype)
        return body.positional_scale * embedding[0]

    def _null_conditions(self, batch: int) -> list[ConditioningAttributes]:
        names = list(self.condition_provider.conditioners)
        text = [name for name in names if name in self.condition_provider.text_conditions]
        if len(text) < len(names):
            raise ValueError(f"conditioners {sorted(set(names) - set(text))} need an input: give conditions")
        return [ConditioningAttributes(text=dict.fromkeys(text)) for _ in range(batch)]

    def _given(self, prompt: tp.Optional[torch.Tensor], conditions: tp.Sequence[ConditioningAttributes],
               num_samples: tp.Optional[int], length: int) -> Given:
        if prompt is None:
            batch = num_samples or len(conditions) or 1
            if conditions and batch != len(conditions):
                raise ValueError(f"num_samples={num_samples}, but there are {len(conditions)} conditions")
            device = next(self.parameters()).device
            prompt = torch.zeros(batch, self.n_q, 0, dtype=torch.long, device=device)
        if prompt.dim() != 3 or prompt.shape[1] != self.n_q:
            raise ValueError(f"the prompt's tokens must be [B, {self.n_q}, P], got {list(prompt.shape)}")
        if length < 1:
            raise ValueError(f"max_gen_len={length}: at least 1 frame is needed; raise duration")
        return Given.prompt(prompt, length)

    def _describe(self) -> str:
        dtype = next(self.parameters()).dtype
        if torch.is_autocast_enabled():
            dtype = torch.get_autocast_gpu_dtype()
        return f"(dtype {str(dtype).removeprefix('torch.')}, attention backend {self.attention_backend})"
