"""What the page shows, as plain values for its scripts and as HTML."""
import html
import logging
import typing as tp

from .jobs import Cancelled, Job
from .visitors import Take, Visitor

logger = logging.getLogger(__name__)
CLIPS = "/clips"                # where the server offers the visitors' files


def url(visitor: Visitor, name: str) -> str:
    """Return the address of a visitor's file."""
    return f"{CLIPS}/{visitor.token}/{name}"


def shelf(visitor: tp.Optional[Visitor], job: tp.Optional[Job] = None, ahead: int = 0) -> dict[str, tp.Any]:
    """Describe a visitor's clips, and the one that is being made by `job`, which has `ahead` jobs before it."""
    if visitor is None:
        return {"takes": [], "pending": None}
    pending = None
    if job is not None and not job.finished.is_set():
        part = dict(job.part)
        if "audio" in part:
            part["audio"] = url(visitor, part["audio"])
        pending = {**part, "title": job.label, "done": job.done, "total": job.total, "ahead": ahead}
    return {"takes": [_take(visitor, take) for take in visitor.shown()], "pending": pending}


def _take(visitor: Visitor, take: Take) -> dict[str, tp.Any]:
    return {"id": take.id, "title": take.title, "note": take.note, "seed": take.seed, "seconds": round(take.seconds, 2),
            "favourite": take.favourite, "audio": url(visitor, take.audio),
            **{kind: url(visitor, name) for kind, name in take.files.items()}}


def message(text: str, kind: str = "info") -> str:
    """Return a message as HTML; `kind` is `info`, `done` or `error`, which screen readers announce."""
    role = "alert" if kind == "error" else "status"
    text = text[:1].upper() + text[1:]
    return f'<div class="mg-message mg-{kind}" role="{role}">{html.escape(text)}</div>'


def failure(error: BaseException) -> str:
    """Describe an error to the visitor, and log it if it is not the visitor's."""
    if isinstance(error, Cancelled):
        return message("cancelled; finished clips are kept")
    if isinstance(error, ValueError):
        return message(str(error), "error")
    logger.error("a request failed", exc_info=error)
    if type(error).__name__ == "OutOfMemoryError":
        return message("the device has too little memory for this; choose a shorter length", "error")
    return message(f"this failed because of a fault in the program ({type(error).__name__}: {error}); the terminal of the "
                   "app shows the details", "error")


def waiting(ahead: int, job: Job) -> str:
    """Describe how far a job is."""
    if ahead:
        return message(f"waiting: {ahead} request{'s' if ahead > 1 else ''} of others before yours")
    if not job.total:
        return message(f"starting {job.label}" if job.label else "starting")
    return message(f"{job.label}: step {job.done} of {job.total}")
