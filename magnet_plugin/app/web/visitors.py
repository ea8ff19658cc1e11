"""Visitors of the page: each has a folder with a secret name, which holds the clips that only this visitor sees."""
import dataclasses
import re
import secrets
import shutil
import threading
import typing as tp
from pathlib import Path

from .jobs import Job
from .recordings import Recording

NAME = re.compile(r"[\w-]+(\.\w+)+")         # of a file in a visitor's folder


@dataclasses.dataclass
class Take:
    """A finished clip.

    Attributes:
        audio: name of the audio file in the visitor's folder.
        files: names of its other files: settings, spectrogram, steps.
        title: what the page calls it.
        note: how it was made, in a few words.
        seed: its seed.
        seconds: its length.
        favourite: it is kept, and shown first.
    """
    audio: str
    files: dict[str, str]
    title: str
    note: str
    seed: int
    seconds: float
    favourite: bool = False

    @property
    def id(self) -> str:
        """What the page names it by."""
        return self.audio.partition(".")[0]


class Visitor:
    """One open page.

    Args:
        root: the folder in which the visitor's own one is created.
        max_kept: number of clips to keep.
    """

    def __init__(self, root: Path, max_kept: int) -> None:
        self.token = secrets.token_urlsafe(18)
        self.folder, self.max_kept = root / self.token, max_kept
        self.folder.mkdir()
        self.takes: list[Take] = []
        self.source: tp.Optional[Recording] = None
        self.job: tp.Optional[Job] = None
        self._count, self._lock = 0, threading.Lock()

    def new_name(self) -> str:
        """Return a name that no other clip of this visitor has."""
        with self._lock:
            self._count += 1
            return f"clip-{self._count:04d}"

    def add(self, take: Take) -> None:
        """Add a clip; the oldest one that is no favourite makes room for it."""
        with self._lock:
            self.takes.append(take)
            while len(self.takes) > self.max_kept:
                self._remove(next((old for old in self.takes if not old.favourite), self.takes[0]))

    def take(self, name: tp.Any) -> Take:
        """Return a clip by its id.

        Raises:
            ValueError: there is none.
        """
        for take in self.takes:
            if take.id == name:
                return take
        raise ValueError("this clip does not exist any more; the oldest clips make room for new ones")

    def remove(self, take: Take) -> None:
        """Delete a clip and its files."""
        with self._lock:
            self._remove(take)

    def clear(self) -> None:
        """Delete all clips that are no favourites."""
        with self._lock:
            for take in [take for take in self.takes if not take.favourite]:
                self._remove(take)

    def _remove(self, take: Take) -> None:
        if take in self.takes:
            self.takes.remove(take)
        for path in self.folder.glob(f"{take.id}.*"):
            path.unlink(missing_ok=True)

    def shown(self) -> list[Take]:
        """All clips: favourites first, and of each kind the newest first."""
        newest = self.takes[::-1]
        return [take for take in newest if take.favourite] + [take for take in newest if not take.favourite]

    def close(self) -> None:
        """End the visitor's work and delete the folder."""
        if self.job is not None:
            self.job.cancel()
            self.job.finished.wait(10)
        shutil.rmtree(self.folder, ignore_errors=True)


class Visitors:
    """All visitors of a server.

    Args:
        root: folder of their folders.
        max_kept: number of clips that each may keep.
    """

    def __init__(self, root: Path, max_kept: int) -> None:
        self.root, self._max_kept = root, max_kept
        self._open: dict[str, Visitor] = {}
        root.mkdir(parents=True, exist_ok=True)

    def __len__(self) -> int:
        return len(self._open)

    def open(self) -> Visitor:
        """Create a visitor."""
        visitor = Visitor(self.root, self._max_kept)
        self._open[visitor.token] = visitor
        return visitor

    def close(self, visitor: tp.Optional[Visitor]) -> None:
        """Forget a visitor who has left, and delete the files."""
        if visitor is not None:
            self._open.pop(visitor.token, None)
            visitor.close()

    def close_all(self) -> None:
        """Forget everybody."""
        for visitor in list(self._open.values()):
            self.close(visitor)

    def file(self, token: str, name: str) -> tp.Optional[Path]:
        """Return the path of a visitor's file; None if there is no such visitor or file."""
        visitor = self._open.get(token)
        if visitor is None or not NAME.fullmatch(name):
            return None
        path = visitor.folder / name
        return path if path.is_file() and not path.is_symlink() else None
