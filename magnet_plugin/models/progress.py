"""A progress bar that names codebook and step of one generation, or the caller's own callback."""
import typing as tp

from tqdm import tqdm

from ..decoding.magnet import Callback


class Progress:
    """Reports the steps of the parts of a generation as one sequence.

    Args:
        shown: report at all.
        callback: called with (steps done, steps in all) instead of showing a progress bar.
        label: what the progress bar is called.
    """

    def __init__(self, shown: bool, callback: tp.Optional[Callback] = None, label: str = "MAGNeT") -> None:
        self._shown, self._callback, self._before = shown, callback, 0
        self._bar = tqdm(unit="step", desc=label, disable=not shown or callback is not None)

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *error: tp.Any) -> None:
        self._bar.close()

    def part(self, remaining: int = 0, steps_of: tp.Sequence[int] = ()) -> tp.Optional[Callback]:
        """Return the callback for the next part of the generation; None if nothing is shown.

        Args:
            remaining: number of steps in the parts after this one.
            steps_of: number of steps of each codebook; those before them are autoregressive frames.
        """
        if not self._shown:
            return None
        before = self._before

        def report(done: int, steps: int) -> None:
            self._before = before + steps
            total = before + steps + remaining
            if self._callback is not None:
                self._callback(before + done, total)
            self._bar.total = total
            self._bar.set_postfix_str(place(done, steps, steps_of), refresh=False)
            self._bar.update(before + done - self._bar.n)

        return report


def place(done: int, steps: int, steps_of: tp.Sequence[int]) -> str:
    """Name the step that was done last.

    >>> place(5, 20, [4, 2, 2, 2]), place(11, 20, [4, 2, 2, 2])
    ('frame 5/10', 'codebook 1/4, step 1/4')

    Args:
        done: steps done.
        steps: steps in all; those of the codebooks are the last ones.
        steps_of: number of steps of each codebook.
    """
    frames = steps - sum(steps_of)
    if done <= frames:
        return f"frame {done}/{frames}"
    step = done - frames
    for codebook, count in enumerate(steps_of, 1):
        if step <= count:
            return f"codebook {codebook}/{len(steps_of)}, step {step}/{count}"
        step -= count
    return ""
