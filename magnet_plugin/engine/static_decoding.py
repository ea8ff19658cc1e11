"""The decoding of `decoding.magnet.decode` in buffers of fixed shapes, where each kind of step is one CUDA graph.

A kind of step is a codebook and the branches that are computed. The graph of a step holds everything from masking to
scoring; the host launches it and goes on. With a rescorer, the graph ends with the logits, and the rest of the step is that
of `decoding.magnet`.
"""
import dataclasses
import typing as tp
import weakref

import torch

from ..decoding.known_tokens import KnownTokens
from ..decoding.magnet import Callback, OnStep, choose_tokens, non_finite, shown
from ..decoding.options import GenerationOptions
from ..decoding.random_source import GLOBAL, RandomSource
from ..decoding.rescoring import NO_RESCORING, NoRescoring
from ..decoding.sampling import Sampler
from ..decoding.span_masker import SpanRule, counts_to_mask
from ..decoding.steps import Stage, Step, stages_of, steps_of
from ..modules.guidance import Branches, BranchSchedule
from .cuda_graphs import CudaGraphs, Function, captures
from .forward import Session
from .kernels import step_functions
from .step import StageState, StepTables, empty_uniforms, guided
from .text_cache import TextCache


@dataclasses.dataclass(frozen=True)
class ClipKind:
    """What graphs depend on: shapes and settings that are not read from tables.

    Attributes:
        shape: [B, K, T].
        steps: number of steps of all stages.
        rule: layout and scoring of spans.
        sampler: how tokens are chosen; without a source of randomness.
        mask_id: the mask token.
        keeps_difference: later steps reuse the difference between the branches.
        rescored: a rescorer takes part.
    """
    shape: tuple[int, int, int]
    steps: int
    rule: SpanRule
    sampler: Sampler
    mask_id: int
    keeps_difference: bool
    rescored: bool


class StaticDecoder:
    """Buffers and graphs for one kind of clip.

    Args:
        session: the model, and a text of the right shape.
        kind: the kind of clip.
        graphs: captures the steps; None runs them directly.
    """

    def __init__(self, session: Session, kind: ClipKind, graphs: tp.Optional[CudaGraphs]) -> None:
        self.session, self.kind = session.to_keep(), kind
        self.engine = self.session.engine
        self._graphs, self._calls = graphs, dict[tuple[int, Branches], Function]()
        B, K, T = kind.shape
        device = self.engine.device

        def zeros(*shape: int, dtype: torch.dtype = torch.long) -> torch.Tensor:
            return torch.zeros(shape, dtype=dtype, device=device)

        self.clip, self.tokens, known = zeros(B, K, T), zeros(B, K, T), zeros(B, K, T, dtype=torch.bool)
        masked, likelihood = zeros(B, T, dtype=torch.bool), zeros(B, T, dtype=torch.float32)
        self.stages = [StageState(self.tokens[:, k], known[:, k], masked, likelihood) for k in range(K)]
        uniforms = empty_uniforms(kind.sampler, kind.steps, B, T, device)
        settings = zeros(kind.steps, 2, dtype=torch.float32)
        self.tables = StepTables(zeros(kind.steps, B), settings, uniforms, index=zeros(1), first_bad=zeros(1))
        card = self.engine.cardinality
        self._difference = zeros(B, T, card, dtype=torch.float32) if kind.keeps_difference else None
        self._logits = zeros(B, T, card, dtype=torch.float32) if kind.rescored else None
        self._remask, self._fill = step_functions(device)

    def prepare(self, calls: tp.Iterable[tuple[int, Branches]]) -> None:
        """Capture the kinds of steps (stage, branches) that are not captured yet. Overwrites the buffers."""
        this = weakref.proxy(self)          # What keeps the graphs must not be kept by them.
        for stage, branches in calls:
            if (stage, branches) not in self._calls:
                def run(stage: int = stage, branches: Branches = branches) -> None:
                    this._run(stage, branches)

                self._calls[stage, branches] = run if self._graphs is None else self._graphs.capture(
                    run, self.tables.index.zero_)

    def begin(self, known: KnownTokens, text: TextCache, steps: tp.Sequence[Step], sampler: Sampler) -> None:
        """Load a clip: its known tokens and text, and the settings and random numbers of all steps."""
        kind, tables, device = self.kind, self.tables, self.engine.device
        self.session.text.copy_(text)
        self.clip.copy_(known.masked(kind.mask_id))
        rates = torch.stack([step.rate for step in steps])
        settings = torch.tensor([[step.temperature, step.guidance] for step in steps])
        table = torch.cat([rates[:, None], settings], dim=1).to(device)         # The only copy from the host.
        tables.settings.copy_(table[:, 1:])
        first = 0
        for k, stage in enumerate(self.stages):
            stage.known.copy_(known.known[:, k])
            count = sum(step.stage == k for step in steps)
            tables.counts[first:first + count] = counts_to_mask(table[first:first + count, 0], kind.rule.free(stage.known))
            first += count
        tables.draw(sampler)
        tables.first_bad.fill_(kind.steps)

    def begin_stage(self, stage: Stage, options: GenerationOptions) -> None:
        """Start a codebook: everything unknown is masked."""
        state = self.stages[stage.codebook]
        self.tokens.copy_(shown(self.clip, stage.codebook, self.kind.mask_id, options))
        torch.eq(state.codes, self.kind.mask_id, out=state.masked)
        state.likelihood.fill_(1)
        self.tables.index.fill_(stage.first)

    def end_stage(self, stage: Stage) -> None:
        """Keep the codebook's tokens."""
        self.clip[:, stage.codebook].copy_(self.tokens[:, stage.codebook])

    def step(self, step: Step, branches: Branches, rescoring: NoRescoring, sampler: Sampler) -> None:
        """Run a step."""
        self._calls[step.stage, branches]()
        if self._logits is not None:
            state, tables = self.stages[step.stage], self.tables
            frames = torch.arange(self.kind.shape[2], device=self.engine.device).expand_as(state.codes)
            uniforms = None if tables.uniforms is None else tables.current(tables.uniforms)
            candidate = choose_tokens(self._logits, self.tokens, step, state.masked, frames, sampler, rescoring, uniforms)
            state.codes.copy_(candidate.tokens[:, step.stage])
            state.likelihood.copy_(candidate.likelihood())
            tables.finish_step(candidate.finite)

    def _run(self, stage: int, branches: Branches) -> None:
        state, tables = self.stages[stage], self.tables
        self._remask(state, tables, self.kind.rule, self.kind.mask_id)
        logits = self.session.logits(self.tokens, stage, branches == "both")
        if self._logits is None:
            self._fill(state, tables, logits, branches, self._difference, self.kind.sampler)
        else:
            self._logits.copy_(guided(logits, branches, tables.current(tables.settings)[1], self._difference))


def decode(session: Session, known: KnownTokens, options: GenerationOptions, *, has_text: bool, mask_id: int, span_len: int,
           random: RandomSource = GLOBAL, callback: tp.Optional[Callback] = None,
           describe: tp.Callable[[], str] = lambda: "", rescoring: NoRescoring = NO_RESCORING,
           on_step: tp.Optional[OnStep] = None) -> torch.Tensor:
    """Fill in all tokens that are not known, as `decoding.magnet.decode` does, by the engine's forward pass.

    Args:
        session: the forward pass of this generation.
        has_text: whether there is a text to guide towards.
        known, options, ...: see `decoding.magnet.decode`.
    Returns:
        Tokens, Long [B, K, T], none of them `mask_id`.
    """
    stages = stages_of(known, options)
    steps = [step for stage in range(len(options.decoding_steps)) for step in steps_of(stage, options)]
    schedule = BranchSchedule(has_text, options.guidance_every)
    plan = [schedule.next(step.stage, step.guidance) for step in steps]
    shape = tp.cast(tuple[int, int, int], tuple(known.tokens.shape))
    kind = ClipKind(shape, len(steps), SpanRule.of(shape[2], span_len, options),
                    Sampler(options.use_sampling, options.top_k, options.top_p), mask_id, options.guidance_every > 1,
                    rescoring is not NO_RESCORING)
    decoder = _decoder(session, kind)
    decoder.prepare(dict.fromkeys((step.stage, branches) for step, branches in zip(steps, plan)))
    sampler = dataclasses.replace(kind.sampler, random=random)
    decoder.begin(known, session.text, steps, sampler)
    done, total = 0, sum(len(stage.steps) for stage in stages)
    for stage in stages:
        decoder.begin_stage(stage, options)
        for step, branches in zip(stage.steps, plan[stage.first:]):
            decoder.step(step, branches, rescoring, sampler)
            done += 1
            if on_step is not None:
                on_step(step, decoder.stages[step.stage].masked.clone())
            if callback is not None:
                callback(done, total)
        bad = int(decoder.tables.first_bad)             # The only synchronization of a stage.
        if bad < len(steps):
            raise non_finite(f"stage {steps[bad].stage}, step {steps[bad].index}", "max_cfg_coef", describe)
        decoder.end_stage(stage)
    return decoder.clip.clone()


def _decoder(session: Session, kind: ClipKind) -> StaticDecoder:
    """Return the engine's decoder for this kind of clip; the least recently used one makes room for a new one."""
    engine = session.engine
    graphs = engine.graphs if captures(engine.device, 2 * kind.shape[0] * kind.shape[2]) else None
    return session.kept(kind, lambda: StaticDecoder(session, kind, graphs))
