"""RescoringOptions: how a rescorer is used in decoding (arXiv 2401.04577, section 3.4).

Details that are not specified in the paper are marked so. Their defaults are this plugin's choices.
"""
import dataclasses
import typing as tp

from .option_types import check_types, real, whole

FILLS = ("special", "greedy")
DEFAULT_WEIGHT = 0.7        # With a rescorer (not specified in the paper).


@dataclasses.dataclass(frozen=True, kw_only=True)
class RescoringOptions:
    """Settings of rescoring, p = w * p_MAGNeT + (1 - w) * p_rescorer.

    Attributes:
        rescorer_weight: w, the weight of MAGNeT's own probabilities; 1 disables rescoring.
        rescorer_stages: codebooks, counted from 0, whose stages are rescored; None means all.
        rescorer_every: rescore every n-th step of a stage, counted back from the last one, which is always rescored
            (not specified in the paper).
        rescorer_cfg_coef: guidance scale of the rescorer; 1 means no guidance, at half the cost (not specified in the
            paper).
        rescorer_fill: what an autoregressive rescorer reads for codebooks that are not generated yet (not specified in the
            paper): `special`, its special token, or `greedy`, its own most likely tokens, codebook by codebook, at one more
            pass for each.
        rescorer_anneal: apply MAGNeT's temperature to the rescorer's probabilities once it is below 1 (not specified in the
            paper). Otherwise, in the last steps of a stage, about a fraction 1 - w of the tokens would be sampled at
            temperature 1 although MAGNeT is nearly greedy.
        rescorer_resample: draw the tokens from the combination (not specified in the paper); False keeps MAGNeT's sample
            and only uses the combination to decide what is masked again.
    Raises:
        ValueError: a value is invalid; the message names the setting and the remedy.
    """
    rescorer_weight: float = 1.0
    rescorer_stages: tp.Optional[tuple[int, ...]] = None
    rescorer_every: int = 1
    rescorer_cfg_coef: float = 1.0
    rescorer_fill: str = "special"
    rescorer_anneal: bool = True
    rescorer_resample: bool = True

    def __post_init__(self) -> None:
        check_types(self)
        if not 0 <= self.rescorer_weight <= 1:
            raise ValueError(f"rescorer_weight={self.rescorer_weight} is outside [0, 1]; 1 disables rescoring, 0 uses only "
                             "the rescorer")
        if self.rescorer_stages is not None:
            object.__setattr__(self, "rescorer_stages", _stages(self.rescorer_stages))
        if self.rescorer_every < 1:
            raise ValueError(f"rescorer_every={self.rescorer_every} must be a whole number of steps, at least 1")
        if self.rescorer_cfg_coef < 0:
            raise ValueError(f"rescorer_cfg_coef={self.rescorer_cfg_coef} must be at least 0 (1: no guidance)")
        check_fill(self.rescorer_fill)

    @property
    def rescores(self) -> bool:
        """Whether these settings need a rescorer."""
        return self.rescorer_weight < 1

    def check_rescorer_stages(self, n_q: int) -> None:
        """Raise ValueError if `rescorer_stages` names a codebook that a model with `n_q` codebooks lacks."""
        beyond = [stage for stage in self.rescorer_stages or () if not 0 <= stage < n_q]
        if beyond:
            raise ValueError(f"rescorer_stages={list(self.rescorer_stages or ())}: the model has stages 0 to {n_q - 1}, not "
                             f"{', '.join(map(str, beyond))}")


def weight_of(weight: tp.Optional[float], source: tp.Any) -> float:
    """Return the weight to use: the given one, or else `DEFAULT_WEIGHT` with a rescorer and 1 without.

    Raises:
        ValueError: the weight is below 1 and there is no rescorer.
    """
    if weight is None:
        return 1.0 if source is None else DEFAULT_WEIGHT
    if real("rescorer_weight", weight) < 1 and source is None:
        raise ValueError(f"rescorer_weight={weight} needs a rescorer; pass rescorer=, a name or a model, or omit "
                         "rescorer_weight")
    return weight


def check_fill(fill: str) -> None:
    """Raise ValueError unless `fill` is a value of `rescorer_fill`."""
    if fill not in FILLS:
        raise ValueError(f"rescorer_fill={fill!r} is unknown; choose one of {', '.join(FILLS)}")


def _stages(values: tp.Iterable[int]) -> tuple[int, ...]:
    try:
        stages = tuple(sorted({whole("rescorer_stages", value) for value in values}))
    except (TypeError, ValueError):
        raise ValueError(f"rescorer_stages={values!r} must be a list of codebooks, counted from 0, such as [0, 1], or "
                         "None for all") from None
    if not stages:
        raise ValueError("rescorer_stages=[] is empty; set None for all stages, or rescorer_weight=1 to disable rescoring")
    return stages
