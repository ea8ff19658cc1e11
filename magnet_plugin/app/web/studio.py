"""The studio: one loaded model, the queue in front of it, and the visitors who use it."""
import shutil
import tempfile
import typing as tp
from pathlib import Path

from .jobs import Job, JobQueue
from .limits import Limits
from .visitors import Visitor, Visitors

if tp.TYPE_CHECKING:
    from ...models.magnet import MAGNeT


class Studio:
    """What all visitors of a server share.

    Args:
        model: the model.
        limits: what a visitor may ask for.
        folder: for temporary files; it is deleted by `close`. By default a new one.

    Attributes:
        uploads: folder into which Gradio writes uploads.
        visitors: who is there.
        queue: runs one request at a time.
    """

    def __init__(self, model: "MAGNeT", limits: tp.Optional[Limits] = None, folder: tp.Optional[Path] = None) -> None:
        self.model, self.limits = model, limits or Limits()
        self.folder = folder or Path(tempfile.mkdtemp(prefix="magnet-app-"))
        self.uploads = self.folder / "uploads"
        self.uploads.mkdir(parents=True, exist_ok=True)
        self.visitors = Visitors(self.folder / "visitors", self.limits.max_kept)
        self.queue = JobQueue(self.limits.max_waiting)

    def start(self, visitor: Visitor, work: tp.Callable[[Job], None]) -> Job:
        """Put a visitor's work into the queue.

        Raises:
            ValueError: the visitor's last request is not finished, or too many visitors are waiting.
        """
        if visitor.job is not None and not visitor.job.finished.is_set():
            raise ValueError("your last request is still running; wait for it or cancel it")
        visitor.job = self.queue.submit(work)
        return visitor.job

    def close(self) -> None:
        """Cancel all work and delete all files."""
        self.queue.close()
        self.visitors.close_all()
        shutil.rmtree(self.folder, ignore_errors=True)
