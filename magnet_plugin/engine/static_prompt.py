"""The decoding of `decoding.autoregressive.decode_prompt` in buffers of fixed shapes, where a step is one CUDA graph.

The graph holds everything from reading the column to writing the next one; the host launches it and goes on.
"""
import dataclasses
import typing as tp
import weakref

import torch

from ..decoding.autoregressive import decoded, delay
from ..decoding.known_tokens import KnownTokens
from ..decoding.magnet import Callback, non_finite
from ..decoding.options import PromptOptions
from ..decoding.random_source import GLOBAL
from ..decoding.sampling import Sampler
from .causal import CausalSession
from .cuda_graphs import CudaGraphs, Function, captures
from .kernels import step_functions
from .step import StageState, StepTables, empty_uniforms


class StaticPrompt:
    """Buffers and graphs for the autoregressive steps of one kind of clip.

    Args:
        session: the model, its KV cache, and a text of the right shape.
        shape: [B, K, T].
        steps: number of steps n; the columns 0 to n - 1 are attended to.
        graphs: captures the steps; None runs them directly.
    """

    def __init__(self, session: CausalSession, shape: tuple[int, int, int], steps: int, graphs: tp.Optional[CudaGraphs]
                 ) -> None:
        self.session, self._graphs = session.to_keep(), graphs
        B, K, T = shape
        self._device = device = session.engine.device
        self.columns = torch.zeros(B, K, T + K, dtype=torch.long, device=device)
        self._free = torch.zeros(B, K, T + K, dtype=torch.bool, device=device)
        self._likelihood = torch.zeros(B, K, device=device)             # Written by `fill`, and not used.
        self._index, self.first_bad = (torch.zeros(1, dtype=torch.long, device=device) for _ in range(2))
        self._settings = torch.zeros(T + K, 2, device=device)
        # On CUDA, masks need a multiple of eight columns; the cache has as many.
        self._column = torch.arange(-(-steps // 8) * 8, device=device)
        self._none = torch.zeros(1, 1, 1, len(self._column), dtype=session.engine.dtype, device=device)
        self._calls = dict[Sampler, tuple[StepTables, Function]]()
        _, self._fill = step_functions(device)

    def prepare(self, sampler: Sampler) -> None:
        """Capture the step with this sampler, which has no source of randomness. Overwrites the buffers."""
        if sampler in self._calls:
            return
        B, K, columns = self.columns.shape
        tables = StepTables(self._index, self._settings, empty_uniforms(sampler, columns, B, K, self._device), self._index,
                            self.first_bad)

        this = weakref.proxy(self)          # What keeps the graphs must not be kept by them.

        def run() -> None:
            this._run(tables, sampler)

        self._calls[sampler] = tables, run if self._graphs is None else self._graphs.capture(run, self._index.zero_)

    def begin(self, session: CausalSession, known: KnownTokens, options: PromptOptions, special: int, start: int,
              sampler: Sampler) -> None:
        """Load a clip: its text, its known tokens, the settings, and the random numbers of all steps."""
        tables, _ = self._calls[dataclasses.replace(sampler, random=GLOBAL)]
        self.session.text.copy_(session.text)
        self.columns.copy_(delay(known.tokens, special))
        self._free.copy_(delay(~known.known, False))
        self._settings.copy_(torch.tensor([options.temperature, options.cfg_coef]))
        tables.draw(sampler)
        self.session.cache.clear()
        self._index.fill_(start)
        self.first_bad.fill_(self.columns.shape[-1])
        self.session.prefill(self.columns[..., :start])

    def step(self, sampler: Sampler) -> None:
        """Run the next step with a sampler that was prepared."""
        self._calls[sampler][1]()

    def _run(self, tables: StepTables, sampler: Sampler) -> None:
        ahead = self._column > self._index
        logits = self.session.logits_at(self.columns.index_select(2, self._index), self._index,
                                        self._none.masked_fill(ahead, float("-inf")))
        following = self._index + 1
        codes, free = (buffer.index_select(2, following)[..., 0] for buffer in (self.columns, self._free))
        state = StageState(codes, free, free, self._likelihood)
        self._fill(state, tables, logits, "both" if self.session.guided else "conditional", None, sampler)
        self.columns.index_copy_(2, following, codes[..., None])


def decode_prompt(session: CausalSession, known: KnownTokens, steps: int, options: PromptOptions, sampler: Sampler, *,
                  special: int, start: int = 0, callback: tp.Optional[Callback] = None,
                  describe: tp.Callable[[], str] = lambda: "") -> KnownTokens:
    """Decode the tokens of the first steps; known tokens are kept.

    Args:
        session: the forward passes, before the first step.
        start: number of steps, at the beginning, whose tokens are all known. They are read in one pass.
        known, steps, ...: see `autoregressive.decode_prompt`.
    """
    shape = tp.cast(tuple[int, int, int], tuple(known.tokens.shape))
    kind = dataclasses.replace(sampler, random=GLOBAL)
    prompt = session.kept(("prompt", shape, steps), lambda: StaticPrompt(
        session, shape, steps, session.engine.graphs if captures(session.engine.device, 2 * shape[0]) else None))
    prompt.prepare(kind)
    prompt.begin(session, known, options, special, start, sampler)
    for step in range(start, steps):
        prompt.step(kind)
        if callback is not None:
            callback(step + 1 - start, steps - start)
    session.steps = steps
    bad = int(prompt.first_bad)                     # The only synchronization.
    if bad < steps:
        raise non_finite(f"prompt step {bad}", "prompt_cfg_coef", describe)
    return decoded(known, prompt.columns.clone(), steps)
