"""The timeout of a process group."""
import typing as tp

import pytest

from magnet_plugin.distributed import process_groups


@pytest.mark.parametrize("timeout", (0, -1, float("nan"), float("inf"), "soon", True, None))
def test_an_invalid_timeout_is_refused(timeout: tp.Any) -> None:
    with pytest.raises(ValueError, match=f"distrib.timeout={timeout} must be a positive number"):
        process_groups.check_timeout(timeout)
