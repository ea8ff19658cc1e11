"""How errors are printed."""
from __future__ import annotations


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
        cause = cause.__cause__ or (None if cause.__suppress_context__ else cause.__context__)
    return "; caused by ".join(parts)
