"""A progress bar over the decoding steps of one generation, or the caller's own callback."""
import typing as tp

from tqdm import tqdm

from ..decoding.magnet import Callback


class Progress:
    """Reports the steps of the parts of a generation as one sequence.

    Args:
        shown: report at all.
        callback: called with (steps done, steps in all) instead of showing a progress bar.
    """

    def __init__(self, shown: bool, callback: tp.Optional[Callback] = None) -> None:
        self._shown, self._callback, self._before = shown, callback, 0
        self._bar = tqdm(unit="step", desc="MAGNeT", disable=not shown or callback is not None)

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *error: tp.Any) -> None:
        self._bar.close()

    def part(self, remaining: int = 0) -> tp.Optional[Callback]:
        """Return the callback for the next part of the generation; None if nothing is shown.

        Args:
            remaining: number of steps in the parts after this one.
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
            self._bar.update(before + done - self._bar.n)

        return report
