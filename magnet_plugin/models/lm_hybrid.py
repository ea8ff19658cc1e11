"""HybridMagnetLMModel: one transformer that writes token by token up to a switch and fills in the rest (see hybrid.py)."""
import dataclasses
import typing as tp

import torch
from audiocraft.models.lm import LMOutput
from audiocraft.modules.conditioners import ClassifierFreeGuidanceDropout, ConditioningAttributes
from audiocraft.modules.transformer import create_sin_embedding
from torch import nn
from torch.nn import functional as F

from ..decoding.autoregressive import write
from ..decoding.magnet import Given, decode
from ..decoding.options import GenerationOptions, PromptOptions
from ..decoding.rescoring import Rescorer, Rescoring
from ..modules.attention import Context, Full
from ..modules.guidance import Guide
from ..modules.hybrid_layout import Layout
from .kv_cache import Memory, Past, RememberingLayer
from .lm_magnet import ConditionTensors, MagnetLMModel


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

    @torch.no_grad()
    def generate(self, prompt: tp.Optional[torch.Tensor] = None,    # type: ignore[override]
                 conditions: tp.Sequence[ConditioningAttributes] = (), num_samples: tp.Optional[int] = None,
                 max_gen_len: int = 256, *, prompt_frames: int = 0, prompt_cfg_coef: float = PromptOptions.cfg_coef,
                 prompt_temperature: float = PromptOptions.temperature, prompt_top_k: int = PromptOptions.top_k,
                 seed: tp.Optional[int] = None, given: tp.Optional[Given] = None,
                 callback: tp.Optional[tp.Callable[[int, int], None]] = None, remove_prompts: bool = False,
                 rescorer: tp.Optional[Rescorer] = None, **options: tp.Any) -> torch.Tensor:
        """Decode tokens as `MagnetLMModel.generate` does, the first frames of them one after another.

        Args:
            prompt_frames: frames to write autoregressively, after those of `prompt`; 0 is a plain MAGNeT. What reaches the
                end of the clip makes all of it autoregressive. Tokens of `given` are kept.
            prompt_cfg_coef: guidance coefficient there.
            prompt_temperature: softmax temperature there.
            prompt_top_k: likeliest tokens to draw from there; 0 draws from all.
        Returns:
            Long [B, K, T].
        """
        writing = PromptOptions(prompt_frames, prompt_cfg_coef, prompt_temperature, prompt_top_k)
        if not writing.frames:
            return super().generate(prompt, conditions, num_samples, max_gen_len, seed=seed, given=given,
                                    callback=callback, remove_prompts=remove_prompts, rescorer=rescorer, **options)
        if options.pop("cfg_coef", None) is not None or options.pop("two_step_cfg", None) is not None:
            raise ValueError("cfg_coef and two_step_cfg are MusicGen's; a hybrid's guidance is set by prompt_cfg_coef, "
                             "max_cfg_coef and min_cfg_coef")
        options.pop("check", None)
        if self.training:
            raise ValueError("generate() needs the model in evaluation mode; call model.eval() first")
        settings = GenerationOptions(**options)
        settings.check_codebooks(self.n_q)
        if settings.engine == "lean" or settings.precision != "model":
            raise ValueError(f"engine={settings.engine}, precision={settings.precision}: the lean engine does not decode "
                             "after a prompt that was written token by token; set engine=auto and precision=model, or "
                             "prompt_duration=0")
        given = given or self._given(prompt, conditions, num_samples, max_gen_len)
        rescoring = Rescoring.of(rescorer, settings, conditions, len(given.tokens))
        tokens = self._decode(given, list(conditions), settings, writing, 0 if prompt is None else prompt.shape[-1], seed,
                              callback, rescoring)
        return tokens[..., prompt.shape[-1]:] if remove_prompts and prompt is not None else tokens

    def _decode(self, given: Given, conditions: list[ConditioningAttributes], settings: GenerationOptions,
                writing: PromptOptions, given_frames: int, seed: tp.Optional[int],
                callback: tp.Optional[tp.Callable[[int, int], None]], rescoring: tp.Optional[Rescoring]) -> torch.Tensor:
        B, K, T = given.tokens.shape
        switch, last = given_frames + writing.frames, T + K - 1
        switch = last if switch >= T else switch
        total = switch + (sum(settings.decoding_steps) if switch < last else 0)

        def report(before: int) -> tp.Optional[tp.Callable[[int, int], None]]:
            return None if callback is None else lambda done, _: callback(before + done, total)

        device = given.tokens.device
        generator = None if seed is None else torch.Generator(device).manual_seed(seed)
        decoder = HybridDecoder(self, conditions, B, switch, T)
        given = write(decoder.next_logits, given, switch, writing, special=self.special_token_id,
                      use_sampling=settings.use_sampling, generator=generator, callback=report(0),
                      describe=self._describe)
        if switch == last:
            return given.tokens
        return decode(Guide(decoder.forward, decoder.guided, settings.guidance_every), given, settings,
                      mask_id=self.special_token_id, span_len=self.span_len, generator=generator,
                      callback=report(switch), describe=self._describe, rescoring=rescoring)


class HybridDecoder:
    """One clip's decoding: remembers the keys and values of the columns before the switch, for both ways.

    Conditional and null conditions are embedded together, as `MagnetLMModel.predictor` has them.

    Args:
        model: the model.
        conditions: one entry per sample; none means unconditional.
        batch: samples B.
        switch: autoregressive steps n.
        length: frames T.
    Raises:
        ValueError: there is not one condition per sample, or no such step.
    """

    def __init__(self, model: HybridMagnetLMModel, conditions: list[ConditioningAttributes], batch: int, switch: int,
                 length: int) -> None:
        if conditions and len(conditions) != batch:
            raise ValueError(f"{len(conditions)} conditions (descriptions) for {batch} samples; give one per sample")
        self.model, self.switch, self.steps = model, switch, 0
        self.guided = bool(conditions)
        null = ClassifierFreeGuidanceDropout(p=1.0)(conditions) if self.guided else model._null_conditions(batch)
        self.tensors = model.embed_conditions(conditions + null)
        device = next(model.parameters()).device
        self.layout = Layout.single(switch, batch * (1 + self.guided), length, model.n_q, device)
        self.memory: Memory = {}
        # One mask serves all rows. The first stage sees all there is, which needs none.
        one = Layout.single(switch, 1, length, model.n_q, device)
        width = model.subcodes_context
        self.contexts = [Full() if k == 0 or width < 0 else one.context(k, width) for k in range(model.n_q)]

    def next_logits(self, column: torch.Tensor, guidance: float) -> torch.Tensor:
        """Guided logits [B, K, card] of the next step, after the column [B, K] that was written before it."""
        if self.steps >= self.switch:
            raise ValueError(f"all {self.switch} steps are written")
        columns = Columns(self.layout.positions[:, self.steps:self.steps + 1], Past(Full(), self.memory))
        sequence = column.repeat(1 + self.guided, 1)[..., None]
        logits = self.model.column_logits(sequence, self.tensors, columns)[:, :, 0].float()
        self.steps += 1
        if not self.guided:
            return logits
        conditional, null = logits.chunk(2)      # both are always computed: what follows needs the memory of both
        return null + (conditional - null) * guidance

    def forward(self, tokens: torch.Tensor, stage: int, positions: torch.Tensor, both: bool) -> torch.Tensor:
        """For `Guide`: logits of codebook `stage` at some frames.

        Args:
            tokens: Long [B, K, T], the special token where unknown.
            stage: the codebook.
            positions: frames, Long [B, M].
            both: compute the null branch too.
        Returns:
            [B, M, card], or [2 B, M, card]; zero for frames that have no column of their own: they are known.
        """
        if self.steps != self.switch:
            raise ValueError(f"{self.steps} of {self.switch} steps are written: the rest cannot be filled in yet")
        if both:
            tokens, positions = tokens.repeat(2, 1, 1), positions.repeat(2, 1)
        rows = len(tokens)
        layout = dataclasses.replace(self.layout, switch=self.layout.switch[:rows])
        tensors = {name: (value[:rows], mask[:rows]) for name, (value, mask) in self.tensors.items()}
        columns = Columns(layout.positions[:, self.switch:], Past(self.contexts[stage], self.memory, keep=False))
        sequence = layout.place(tokens, self.model.special_token_id)[..., self.switch:]
        logits = self.model.column_logits(sequence, tensors, columns, stage, one_head=True)
        logits = F.pad(logits, (0, 0, tokens.shape[-1] - logits.shape[1], 0))
        return logits.gather(1, positions[..., None].expand(-1, -1, logits.shape[-1]))
