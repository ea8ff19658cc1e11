"""How errors are printed."""
from __future__ import annotations

import contextlib
import typing as tp


class OutOfMemory(ValueError):
    """A device has no memory for what was asked of it; the message names it and the remedy."""


@contextlib.contextmanager
def out_of_memory_during(task: str, remedy: str) -> tp.Iterator[None]:
    """Raise OutOfMemory in the place of PyTorch's error of that kind.

    Args:
        task: what needs the memory, and how large it is.
        remedy: what to set instead.
    """
    try:
        yield
    except RuntimeError as error:
        if type(error).__name__ != "OutOfMemoryError":      # Without importing torch.
            raise
        needed = " ".join(str(error).split()).partition(" GPU ")[0].rstrip(".")
        raise OutOfMemory(f"not enough memory on the device for {task} ({needed}); {remedy}") from error


def describe(error: BaseException) -> str:
    """Describe an error and its causes in one line."""
    parts: list[str] = []
    cause: BaseException | None = error
    while cause is not None:
        text = " ".join(str(cause).split())
        if parts or not text:
            text = f"{type(cause).__name__}{': ' if text else ''}{text}"
        if text not in parts:                       # Layers of one library often pass on the same error.
            parts.append(text)
        if isinstance(cause, OutOfMemory):              # It holds what matters of its long cause.
            break
        cause = cause.__cause__ or (None if cause.__suppress_context__ else cause.__context__)
    return "; caused by ".join(parts)
