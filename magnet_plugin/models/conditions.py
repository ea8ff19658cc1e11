"""One generation's conditions for several models: each gets what its own conditioners know, embedded by them."""
import typing as tp

import torch
from audiocraft.models.lm import LMModel
from audiocraft.modules.conditioners import ClassifierFreeGuidanceDropout, ConditioningAttributes, ConditionType

ConditionTensors = dict[str, ConditionType]


def conditions_for(lm: LMModel, conditions: tp.Sequence[ConditioningAttributes], batch: int, what: str
                   ) -> list[ConditioningAttributes]:
    """The conditions as `lm` takes them: its text attributes, null where the generation has none.

    Args:
        conditions: one entry per sample; none means unconditional.
        batch: number of samples B.
        what: the model's part, for errors: "the rescorer".
    Raises:
        ValueError: `lm` needs more than text, knows none of the texts, or their number is wrong.
    """
    names = set(lm.condition_provider.text_conditions)
    check_text_only(lm.condition_provider.conditioners, names, what)
    if conditions and len(conditions) != batch:
        raise ValueError(f"{len(conditions)} conditions (descriptions) for {batch} samples; give one per sample")
    given = {name for sample in conditions for name in sample.text}
    if conditions and names and not names & given:
        raise ValueError(f"{what} is conditioned on {', '.join(sorted(names))}, but this generation gives "
                         f"{', '.join(sorted(given)) or 'no text'}; use a model trained with the same attributes")
    samples = conditions or [ConditioningAttributes() for _ in range(batch)]
    return [ConditioningAttributes(text={name: sample.text.get(name) for name in sorted(names)}) for sample in samples]


def check_text_only(names: tp.Iterable[str], text: tp.Iterable[str], what: str) -> None:
    """Raise ValueError if there are conditioners beside those of text: MAGNeT has nothing to give them."""
    beyond = sorted(set(names) - set(text))
    if beyond:
        raise ValueError(f"{what} is conditioned on {', '.join(beyond)}, not on text alone; use a model such as "
                         "facebook/musicgen-small")


def has_text(conditions: tp.Sequence[ConditioningAttributes]) -> bool:
    """Whether there is anything to be guided towards."""
    return any(text is not None for sample in conditions for text in sample.text.values())


def embed(lm: LMModel, conditions: list[ConditioningAttributes], guided: bool) -> ConditionTensors:
    """Embedded conditions of B rows, or of 2 B, the null ones last, for classifier-free guidance."""
    if guided:
        conditions = conditions + ClassifierFreeGuidanceDropout(p=1.0)(conditions)
    return lm.condition_provider(lm.condition_provider.tokenize(conditions))


def guide(logits: torch.Tensor, cfg_coef: float) -> torch.Tensor:
    """Rows of `embed(..., guided=True)`, [2 B, ...] -> [B, ...]: unconditional + coefficient * difference."""
    conditional, unconditional = logits.chunk(2)
    return unconditional + cfg_coef * (conditional - unconditional)
