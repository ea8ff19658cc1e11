"""Tests on random examples: the same few in the quick suite each time, and many in the slow one."""
import functools
import inspect
import typing as tp

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis.strategies import SearchStrategy

Test = tp.Callable[..., None]


def drawn(few: int, many: int, **strategies: SearchStrategy) -> tp.Callable[[Test], Test]:
    """Run a test on drawn arguments; its other arguments are fixtures.

    Args:
        few: number of examples in the quick suite.
        many: number of examples in the slow suite (`integ`).
        **strategies: how the arguments are drawn.
    """
    def decorate(test: Test) -> Test:
        parameters = inspect.signature(test).parameters
        own = {name: parameters[name] for name in strategies}

        @pytest.mark.parametrize("examples", [few, pytest.param(many, marks=pytest.mark.integ)])
        def run(examples: int, **fixtures: tp.Any) -> None:
            @functools.wraps(test)
            def example(*values: tp.Any, **named: tp.Any) -> None:
                test(**fixtures, **dict(zip(own, values)), **named)

            example.__signature__ = inspect.Signature(list(own.values()))   # type: ignore[attr-defined]
            settings(max_examples=examples, derandomize=True, deadline=None, database=None,
                     suppress_health_check=list(HealthCheck))(given(**strategies)(example))()

        fixtures = [parameter for name, parameter in parameters.items() if name not in strategies]
        run.__name__, run.__doc__, run.__module__ = test.__name__, test.__doc__, test.__module__
        run.__signature__ = inspect.Signature(          # type: ignore[attr-defined]
            [inspect.Parameter("examples", inspect.Parameter.POSITIONAL_OR_KEYWORD), *fixtures])
        return run

    return decorate
