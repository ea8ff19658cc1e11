"""`--device`: names that are accepted, and devices that this machine does not have."""
import pytest
import torch

from magnet_plugin.cli.device import get_device


def test_devices_of_a_machine_with_two_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert get_device(None) == torch.device("cuda") and get_device("cuda:1") == torch.device("cuda", 1)
    assert get_device("cpu") == torch.device("cpu")
    with pytest.raises(ValueError, match="--device cuda:2: the highest number of a CUDA device on this machine is 1"):
        get_device("cuda:2")


@pytest.mark.parametrize("name", ["", "gpu", "cuda:", "cuda:-1", "cuda:x", "cpu:1", "CUDA", "meta"])
def test_other_names_are_rejected(name: str) -> None:
    with pytest.raises(ValueError, match="this is not a supported device; give cpu, cuda or cuda:N"):
        get_device(name, ("cpu", "cuda"))


def test_an_apple_gpu_has_to_be_there(monkeypatch: pytest.MonkeyPatch) -> None:
    for available in (True, False):
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda available=available: available)
        if available:
            assert get_device("mps") == torch.device("mps")
        else:
            with pytest.raises(ValueError, match="--device mps: torch finds no Apple GPU"):
                get_device("mps")
