"""Types and names of settings, checked where settings are made."""
import dataclasses
import difflib
import math
import numbers
import typing as tp

#: Names under which `MAGNeT.set_generation_params` takes fields that are called otherwise.
PUBLIC_NAMES = {"temp": "temperature (temp in configs)"}


def check_types(options: tp.Any) -> None:
    """Check the fields of a frozen dataclass that are annotated as bool, int, float or str; numbers become Python's own.

    Raises:
        ValueError: a value has another type or is not finite; the message names the field.
    """
    for field in dataclasses.fields(options):
        value, name = getattr(options, field.name), PUBLIC_NAMES.get(field.name, field.name)
        if field.type is bool and not isinstance(value, bool):
            raise ValueError(f"{name}={value!r} must be True or False")
        if field.type is str and not isinstance(value, str):
            raise ValueError(f"{name}={value!r} must be a word in quotation marks")
        if field.type is int:
            object.__setattr__(options, field.name, whole(name, value))
        if field.type is float:
            object.__setattr__(options, field.name, real(name, value))


def whole(name: str, value: tp.Any) -> int:
    """Return a whole number. Raises ValueError for anything else, also for 2.0 and True."""
    if isinstance(value, bool) or not isinstance(value, numbers.Integral):
        raise ValueError(f"{name}={value!r} must be a whole number")
    return int(value)


def real(name: str, value: tp.Any) -> float:
    """Return a finite number. Raises ValueError for anything else."""
    if isinstance(value, bool) or not isinstance(value, numbers.Real) or not math.isfinite(value):
        raise ValueError(f"{name}={value!r} must be a finite number")
    return int(value) if isinstance(value, numbers.Integral) else float(value)


def check_names(given: tp.Iterable[str], known: tp.Iterable[str]) -> None:
    """Raise ValueError for a setting that does not exist; the message suggests a similar one."""
    names = sorted(known)
    for name in given:
        if name not in names:
            similar = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
            hint = f"did you mean {similar[0]}?" if similar else f"settings are {', '.join(names)}"
            raise ValueError(f"there is no setting {name!r}; {hint}")
