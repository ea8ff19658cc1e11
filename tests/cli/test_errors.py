"""Errors in one line."""
from magnet_plugin.cli.errors import describe


def test_describe_shows_every_cause():
    try:
        try:
            dict[str, int]()["key"]
        except KeyError as error:
            raise OSError("two\n  lines") from error
    except OSError as error:
        try:
            raise ValueError("top")
        except ValueError as top:
            assert top.__context__ is error
            assert describe(top) == "top; caused by OSError: two lines; caused by KeyError: 'key'"
    assert describe(ValueError()) == "ValueError"
    twice = ValueError("top")
    twice.__cause__ = OSError("low")
    twice.__cause__.__cause__ = OSError("low")
    assert describe(twice) == "top; caused by OSError: low"
    hidden = ValueError("shown")
    hidden.__context__, hidden.__suppress_context__ = KeyError("not shown"), True
    assert describe(hidden) == "shown"
