"""Masks as the page draws them: runs of frames for each codebook, of a mask before an edit and of every decoding step."""
import threading
import typing as tp

import torch

from ...decoding.steps import Step

Runs = list[list[int]]


def runs_of(row: torch.Tensor) -> Runs:
    """Return the runs of True in Bool [T] as [first, end) frames.

    >>> runs_of(torch.tensor([True, True, False, True]))
    [[0, 2], [3, 4]]
    """
    padded = torch.nn.functional.pad(row.detach().to("cpu", torch.int8), (1, 1))
    change = padded.diff()
    return [list(pair) for pair in zip((change == 1).nonzero()[:, 0].tolist(), (change == -1).nonzero()[:, 0].tolist())]


def picture(known: torch.Tensor, frame_rate: float, steps: tp.Sequence[dict[str, tp.Any]] = ()) -> dict[str, tp.Any]:
    """Describe a clip's mask, and the steps that filled it in.

    Args:
        known: tokens that are kept, Bool [K, T].
        frame_rate: frames per second.
        steps: of `StepRecorder`.
    Returns:
        Plain values for the page.
    """
    return {"codebooks": known.shape[0], "frames": known.shape[1], "frame_rate": float(frame_rate),
            "known": [runs_of(row) for row in known], "steps": list(steps)}


class StepRecorder:
    """Notes which frames each decoding step masks, for `ClipModel.on_step`.

    Attributes:
        steps: codebook, number of the step, steps of the codebook, and masked runs, in the order of decoding.
    """

    def __init__(self) -> None:
        self.steps: list[dict[str, tp.Any]] = []
        self._lock = threading.Lock()

    def __call__(self, step: Step, masked: torch.Tensor) -> None:
        """Note a step of a clip that is alone in its batch; `masked` is Bool [1, T]."""
        with self._lock:
            self.steps.append({"codebook": step.stage, "step": step.index, "of": step.count, "masked": runs_of(masked[0])})
