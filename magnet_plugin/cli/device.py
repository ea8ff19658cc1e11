"""The option `--device`, which `magnet generate` and `magnet bench` share."""
from __future__ import annotations

import typing as tp

if tp.TYPE_CHECKING:
    import torch

HELP = "cpu, cuda, or cuda:N for one of several GPUs (default: cuda if available, otherwise cpu)"


def get_device(name: str | None, kinds: tp.Sequence[str] = ("cpu", "cuda", "mps")) -> torch.device:
    """Return the device that `--device` names; by default CUDA if it is available, otherwise the CPU.

    Args:
        name: a kind of device, and `:N` for CUDA device number N; a wrong name is reported before torch is imported.
        kinds: the kinds of devices that the command supports.
    Raises:
        ValueError: the command does not support the device, or this machine does not have it.
    """
    kind, colon, number = (name or "").partition(":")
    if name is not None and (kind not in kinds or colon and (kind != "cuda" or not number.isdecimal())):
        raise ValueError(f"--device {name}: this is not a supported device; give {', '.join(kinds)} or cuda:N")
    import torch

    from ..environment import default_device
    device = torch.device(name or default_device())
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise ValueError(f"--device {name}: torch finds no Apple GPU on this machine; give cpu")
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ValueError(f"--device {name}: torch finds no CUDA device; give cpu, or run `magnet doctor` to see the cause")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ValueError(f"--device {name}: the highest number of a CUDA device on this machine is "
                         f"{torch.cuda.device_count() - 1}; give cuda:N with N from 0 to that number")
    return device
