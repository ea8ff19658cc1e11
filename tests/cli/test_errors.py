"""Errors in one line."""
import pytest
import torch

from magnet_plugin.cli.errors import describe, out_of_memory_during


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


def test_an_error_of_memory_names_the_task_and_the_remedy():
    text = ("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 79.11 GiB of which 1.10 GiB is "
            "free.\nIf reserved but unallocated memory is large try setting PYTORCH_ALLOC_CONF")
    with pytest.raises(ValueError) as raised, out_of_memory_during("a clip of 30 s", "give --device cpu"):
        raise torch.OutOfMemoryError(text)
    assert describe(raised.value) == ("not enough memory on the device for a clip of 30 s (CUDA out of memory. Tried to "
                                      "allocate 2.00 GiB); give --device cpu")
    with pytest.raises(RuntimeError, match="another"), out_of_memory_during("a clip", "wait"):
        raise RuntimeError("another")
