"""Text conditions of a generation, selected and embedded for each of its models."""
import collections
import typing as tp
import weakref

import torch
from audiocraft.models.lm import LMModel
from audiocraft.modules.conditioners import (
    ClassifierFreeGuidanceDropout,
    ConditionFuser,
    ConditioningAttributes,
    ConditionType,
)
from torch.nn import functional as F

ConditionTensors = dict[str, ConditionType]
"""Embeddings [rows, S, D] and mask [rows, S] by name. A boolean mask is True for the positions that a text has, and the
others are masked in cross-attention; AudioCraft's integer masks are ignored there, as AudioCraft does."""
_CACHED_TEXTS = 1024
_Text = tuple[tuple[str, tp.Optional[str]], ...]
_caches: "weakref.WeakKeyDictionary[LMModel, tuple[tp.Hashable, collections.OrderedDict[_Text, ConditionTensors]]]" = (
    weakref.WeakKeyDictionary())


def embed(lm: LMModel, conditions: tp.Sequence[ConditioningAttributes], guided: bool,
          negative: tp.Sequence[ConditioningAttributes] = (), padding: str = "masked") -> ConditionTensors:
    """Embed the conditions of a generation.

    Args:
        lm: the model.
        conditions: one entry per sample.
        guided: append a row for each sample that guidance leads away from.
        negative: conditions of those rows; by default they are unconditional.
        padding: `masked` embeds each text by itself and remembers it, so that a text does not depend on its neighbours in a
            batch. `attended` embeds all rows together, as AudioCraft does: shorter texts are padded with zeros, which take
            part in cross-attention.
    Returns:
        Embeddings and masks by name, of B rows, or of 2 B rows with the unconditional or negative ones last.
    """
    rows = list(conditions)
    if guided:
        rows += list(negative) or ClassifierFreeGuidanceDropout(p=1.0)(rows)
    provider = lm.condition_provider
    if padding == "attended" or set(provider.conditioners) != set(provider.text_conditions):
        return provider(provider.tokenize(rows))
    alone = [_embed_alone(lm, row) for row in rows]
    return {name: _stack([one[name][0] for one in alone]) for name in alone[0]} if alone else {}


def embed_branches(lm: LMModel, conditions: tp.Sequence[ConditioningAttributes], batch: int,
                   negative: tp.Sequence[ConditioningAttributes] = (), padding: str = "masked"
                   ) -> tuple[ConditionTensors, bool]:
    """Embed the conditions of a generation and say whether there is a text to guide towards.

    Args:
        lm: the model.
        conditions: one entry per sample; none means unconditional.
        batch: number of samples B.
        negative, padding: see `embed`.
    Raises:
        ValueError: the number of conditions is wrong, or negative ones have nothing to be guided away from.
    """
    check_count(conditions, batch)
    check_count(negative, batch)
    if negative and not conditions:
        raise ValueError("negative texts need texts to lead to: pass descriptions too")
    return embed(lm, conditions or unconditional(lm, batch), bool(conditions), negative, padding), bool(conditions)


def _embed_alone(lm: LMModel, row: ConditioningAttributes) -> ConditionTensors:
    """Embed a text by itself, or return what an earlier call has computed."""
    parameters = list(lm.condition_provider.parameters())
    device = parameters[0].device.type if parameters else "cpu"
    state = (torch.is_autocast_enabled(device), torch.get_autocast_dtype(device), torch.is_grad_enabled(),
             *((p.data_ptr(), p._version) for p in parameters))
    if lm not in _caches or _caches[lm][0] != state:
        _caches[lm] = state, collections.OrderedDict()
    # In training, a clip's attributes contain more than the model reads.
    cache, key = _caches[lm][1], tuple((name, row.text.get(name)) for name in lm.condition_provider.text_conditions)
    found = cache.get(key)
    if found is None:
        found = cache[key] = lm.condition_provider(lm.condition_provider.tokenize([row]))
        if len(cache) > _CACHED_TEXTS:
            cache.popitem(last=False)
    cache.move_to_end(key)
    return found


def _stack(values: list[torch.Tensor]) -> ConditionType:
    """Stack embeddings [1, S_i, D] to [rows, S, D], with a boolean mask [rows, S] if their lengths differ."""
    longest, device = max(value.shape[1] for value in values), values[0].device
    stacked = torch.cat([F.pad(value, (0, 0, 0, longest - value.shape[1])) for value in values])
    lengths = [value.shape[1] for value in values]
    if min(lengths) == longest:
        return stacked, torch.ones(stacked.shape[:2], dtype=torch.int, device=device)
    return stacked, torch.arange(longest, device=device) < torch.tensor(lengths, device=device)[:, None]


def text_mask(tensors: ConditionTensors, fuser: ConditionFuser) -> tp.Optional[torch.Tensor]:
    """Return which positions cross-attention may attend to, Bool [rows, S]; None if that is all of them."""
    masks = [mask for name, (_, mask) in tensors.items() if fuser.cond2fuse[name] == "cross"]
    if not any(mask.dtype == torch.bool for mask in masks):
        return None
    return torch.cat([mask if mask.dtype == torch.bool else torch.ones_like(mask).bool() for mask in masks], dim=1)


def rows_of(tensors: ConditionTensors, rows: int) -> ConditionTensors:
    """Select the first rows of embedded conditions."""
    return {name: (value[:rows], mask[:rows]) for name, (value, mask) in tensors.items()}


def by_text_length(tensors: ConditionTensors) -> tp.Iterator[tuple[torch.Tensor, ConditionTensors]]:
    """Divide rows into groups without padding: yields the numbers of the rows, Long [N], and their conditions.

    AudioCraft's transformer has no mask for padding, so that its models read one group at a time.
    """
    lengths = torch.stack([mask.sum(dim=-1) for _, mask in tensors.values()], dim=-1)          # [rows, names]
    for own in lengths.unique(dim=0):
        rows = (lengths == own).all(dim=-1).nonzero()[:, 0]
        yield rows, {name: (value[rows, :int(length)], mask[rows, :int(length)])
                     for (name, (value, mask)), length in zip(tensors.items(), own)}


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
