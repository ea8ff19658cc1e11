"""Rows of the tables of bad inputs, and what holds for each message."""
import typing as tp

import pytest


class Bad(tp.NamedTuple):
    """A bad input and a fragment of the message that it must give.

    Attributes:
        inputs: a command line, overrides of a config, or a function without arguments.
        words: what the message must contain.
    """
    inputs: tp.Any
    words: str


def table(rows: tp.Sequence[Bad]) -> tp.Any:
    """Return a decorator that runs a test of the arguments `inputs` and `words` with each row."""
    return pytest.mark.parametrize("inputs, words", rows, ids=[
        f"{number}-{row.inputs}" if isinstance(row.inputs, str) else f"{number}-{row.words[:40]}"
        for number, row in enumerate(rows)])


def check_message(message: str, words: str) -> None:
    """Check that a message is one line with these words."""
    assert words in message, message
    assert "\n" not in message.strip(), message
