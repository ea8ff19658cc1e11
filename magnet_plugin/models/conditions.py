"""Text conditions of a generation, selected and embedded for each of its models."""
import typing as tp

from audiocraft.models.lm import LMModel
from audiocraft.modules.conditioners import ClassifierFreeGuidanceDropout, ConditioningAttributes, ConditionType

ConditionTensors = dict[str, ConditionType]


def embed(lm: LMModel, conditions: list[ConditioningAttributes], guided: bool) -> ConditionTensors:
    """Embed conditions for a forward pass.

    Conditional and unconditional rows are embedded together, as AudioCraft does: padding changes numbers.

    Args:
        lm: the model.
        conditions: one entry per sample.
        guided: append an unconditional row for each sample, for classifier-free guidance.
    Returns:
        Embeddings and masks by name, of B rows, or of 2 B rows with the unconditional ones last.
    """
    if guided:
        conditions = conditions + ClassifierFreeGuidanceDropout(p=1.0)(conditions)
    return lm.condition_provider(lm.condition_provider.tokenize(conditions))


def rows_of(tensors: ConditionTensors, rows: int) -> ConditionTensors:
    """Select the first rows of embedded conditions."""
    return {name: (value[:rows], mask[:rows]) for name, (value, mask) in tensors.items()}


def unconditional(lm: LMModel, batch: int) -> list[ConditioningAttributes]:
    """Return conditions without a text for `batch` samples.

    Raises:
        ValueError: `lm` has conditioners that need an input.
    """
    names = set(lm.condition_provider.conditioners)
    text = names & set(lm.condition_provider.text_conditions)
    if names - text:
        raise ValueError(f"conditioners {sorted(names - text)} require inputs; pass `conditions`")
    return [ConditioningAttributes(text=dict.fromkeys(sorted(text))) for _ in range(batch)]


def check_count(conditions: tp.Sequence[ConditioningAttributes], batch: int) -> None:
    """Raise ValueError unless there is one condition per sample, or none at all."""
    if conditions and len(conditions) != batch:
        raise ValueError(f"{len(conditions)} conditions (descriptions) for {batch} samples; give one per sample")


def conditions_for(lm: LMModel, conditions: tp.Sequence[ConditioningAttributes], batch: int, role: str
                   ) -> list[ConditioningAttributes]:
    """Select the text attributes that another model knows; they are None where the generation has none.

    Args:
        lm: the model.
        conditions: one entry per sample; none means unconditional.
        batch: number of samples B.
        role: the model's role, for errors: "the rescorer".
    Raises:
        ValueError: `lm` needs more than text, knows none of the texts, or their number is wrong.
    """
    names = set(lm.condition_provider.text_conditions)
    check_text_only(lm.condition_provider.conditioners, names, role)
    check_count(conditions, batch)
    given = {name for sample in conditions for name in sample.text}
    if conditions and names and not names & given:
        raise ValueError(f"{role} is conditioned on {', '.join(sorted(names))}, but this generation gives "
                         f"{', '.join(sorted(given)) or 'no text'}; use a model trained with the same attributes")
    samples = conditions or [ConditioningAttributes() for _ in range(batch)]
    return [ConditioningAttributes(text={name: sample.text.get(name) for name in sorted(names)}) for sample in samples]


def check_text_only(names: tp.Iterable[str], text: tp.Iterable[str], role: str) -> None:
    """Raise ValueError if some conditioners `names` are not among those of `text`: MAGNeT has no input for them."""
    beyond = sorted(set(names) - set(text))
    if beyond:
        raise ValueError(f"{role} also requires {', '.join(beyond)}; use a model that is conditioned only on text, such as "
                         "facebook/musicgen-small")


def has_text(conditions: tp.Sequence[ConditioningAttributes]) -> bool:
    """Whether any sample has a text to be guided towards."""
    return any(text is not None for sample in conditions for text in sample.text.values())
