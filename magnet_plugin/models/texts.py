"""What a generation is conditioned on: a text per sample, texts to lead away from, and texts that set in later."""
import dataclasses
import typing as tp

from audiocraft.modules.conditioners import ConditioningAttributes

from ..decoding.option_types import real
from .wishes import add_wishes

Description = tp.Optional[str]
Timed = tp.Sequence[tuple[float, str]]


@dataclasses.dataclass(frozen=True)
class Texts:
    """The texts of a generation.

    Attributes:
        descriptions: one per sample; None is a sample without a text.
        negative: texts that guidance leads away from, one per sample, instead of no text; empty for none.
        timed: (start in seconds, text), by time. From then on, windows whose middle lies behind it read the text after the
            sample's own one.
    """
    descriptions: tuple[Description, ...]
    negative: tuple[Description, ...] = ()
    timed: tuple[tuple[float, str], ...] = ()

    @staticmethod
    def read(descriptions: tp.Optional[tp.Sequence[Description]], batch: tp.Optional[int] = None,
             negative: tp.Union[Description, tp.Sequence[Description]] = None, timed: Timed = ()) -> "Texts":
        """Check texts as a caller gives them.

        Args:
            descriptions: one per sample; None for samples without a text, whose number is then `batch`.
            batch: number of samples B; None means that of the descriptions.
            negative: one text for all samples, or one per sample.
            timed: see the attribute.
        Raises:
            ValueError: a text is not a text, or there is not one per sample.
        """
        if isinstance(descriptions, str):
            raise ValueError("descriptions must be a list of texts, not one text; pass [text]")
        if descriptions is not None and (isinstance(descriptions, (bytes, dict))
                                         or not isinstance(descriptions, tp.Iterable)):
            raise ValueError(f"descriptions={descriptions!r} must be a list of texts")
        given = tuple([None] * (batch or 0) if descriptions is None else descriptions)
        if not given:
            raise ValueError("descriptions is empty; pass at least one text, or call generate_unconditional(num_samples)")
        if batch is not None and len(given) != batch:
            raise ValueError(f"{len(given)} descriptions for {batch} samples; give one per sample")
        away = () if negative is None else (negative,) * len(given) if isinstance(negative, str) else _listed(negative)
        if away and len(away) != len(given):
            raise ValueError(f"{len(away)} negative_descriptions for {len(given)} samples; give one text, or one per sample")
        if away and descriptions is None:
            raise ValueError("negative_descriptions need descriptions to lead to; pass them too")
        for name, texts in (("descriptions", given), ("negative_descriptions", away)):
            for text in texts:
                if text is not None and not isinstance(text, str):
                    raise ValueError(f"{name}: {text!r} is not a text; pass strings, or None for no text")
        return Texts(given, away, _timed(timed))

    def of(self, rows: tp.Sequence[int]) -> "Texts":
        """Return the texts of some samples."""
        return dataclasses.replace(self, descriptions=tuple(self.descriptions[row] for row in rows),
                                   negative=tuple(self.negative[row] for row in rows if self.negative))

    @property
    def have_words(self) -> bool:
        """Whether each sample has a text, or gets one that sets in later."""
        return bool(self.timed) or None not in self.descriptions

    def with_wishes(self, bpm: tp.Optional[float] = None, key: tp.Optional[str] = None) -> "Texts":
        """Add a tempo and a key to each description, see `add_wishes`."""
        return dataclasses.replace(self, descriptions=tuple(add_wishes(text, bpm, key) for text in self.descriptions))

    def conditions(self, middle: float = 0.0) -> list[ConditioningAttributes]:
        """Return the conditions of a window with this middle in seconds; none if there is no text at all."""
        later = [text for start, text in self.timed if start <= middle][-1:]
        texts = [", ".join(part for part in (text, *later) if part) or None for text in self.descriptions]
        return attributes(texts) if self.negative or any(text is not None for text in texts) else []

    def negative_conditions(self) -> list[ConditioningAttributes]:
        """Return the conditions that guidance leads away from; none means those without a text."""
        return attributes(self.negative)


def attributes(texts: tp.Iterable[Description]) -> list[ConditioningAttributes]:
    """Return texts as AudioCraft's models read them."""
    return [ConditioningAttributes(text={"description": text}) for text in texts]


def _listed(texts: tp.Any) -> tuple[Description, ...]:
    if not isinstance(texts, tp.Iterable):
        raise ValueError(f"negative_descriptions={texts!r} must be a text, or a list with one per sample")
    return tuple(texts)


def _timed(timed: tp.Any) -> tuple[tuple[float, str], ...]:
    found = []
    for entry in timed if isinstance(timed, (list, tuple)) else [timed]:
        try:
            start, text = entry
            found.append((real("timed_descriptions", start), text))
        except (TypeError, ValueError):
            start, text = -1.0, None
        if start < 0 or not isinstance(text, str):
            raise ValueError(f"timed_descriptions: {entry!r} must be (start in seconds, text)")
    return tuple(sorted(found, key=lambda entry: entry[0]))
