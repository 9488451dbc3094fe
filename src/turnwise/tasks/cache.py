"""Things made once on disk, by whichever thread or process comes first, and whole or not at all."""

import fcntl
import os
import shutil
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from turnwise.errors import TaskError

_HELD = ".held"  # locked by the process whose scratch folder it lies in
_LOOK_EVERY_S = 0.1


class BuildingStopped(TaskError):
    """What was being built, or waited for, is no longer wanted."""

    def __init__(self) -> None:
        super().__init__("building was stopped")


def default_cache_dir() -> Path:
    """`$TURNWISE_CACHE`, or `~/.cache/turnwise`."""
    return Path(os.environ.get("TURNWISE_CACHE") or Path.home() / ".cache" / "turnwise")


@contextmanager
def locked(path: Path, stopped: threading.Event | None = None) -> Iterator[None]:
    """Hold the lock that stands beside `path`; it goes with its holder, however that ends.

    Raises BuildingStopped when `stopped` is set while another holds it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with (path.parent / f".{path.name}.lock").open("w", encoding="utf-8") as file:
        if stopped is None:
            fcntl.flock(file, fcntl.LOCK_EX)
        else:
            _lock_unless_stopped(file, stopped)
        yield


def _lock_unless_stopped(file: IO[str], stopped: threading.Event) -> None:
    while not stopped.is_set():
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            stopped.wait(_LOOK_EVERY_S)
        else:
            return
    raise BuildingStopped


def made_once(path: Path, build: Callable[[Path], None], stopped: threading.Event | None = None) -> Path:
    """The folder at `path`, built in a folder beside it and renamed when it does not exist yet.

    Safe under concurrent callers, threads and processes; a killed build leaves nothing that is taken for whole. Raises
    BuildingStopped when `stopped` is set while another builds it.
    """
    if path.exists():
        return path
    with locked(path, stopped):
        if path.exists():
            return path
        making = path.with_name(f".making-{path.name}")
        shutil.rmtree(making, ignore_errors=True)
        making.mkdir()
        try:
            build(making)
            making.rename(path)
        finally:
            shutil.rmtree(making, ignore_errors=True)
    return path


class Scratch:
    """A folder of temporary files under `parent`; what a killed process left there goes when the next one is made."""

    def __init__(self, parent: Path) -> None:
        with locked(parent):
            parent.mkdir(exist_ok=True)
            for left in parent.iterdir():
                _remove_unless_held(left)
            self.folder = parent / uuid.uuid4().hex
            self.folder.mkdir()
            self._lock = (self.folder / _HELD).open("w", encoding="utf-8")
            fcntl.flock(self._lock, fcntl.LOCK_EX)

    def close(self) -> None:
        """Remove the folder and all that is in it."""
        shutil.rmtree(self.folder, ignore_errors=True)
        self._lock.close()


def _remove_unless_held(folder: Path) -> None:
    # It is held while its process lives, and gone where that is just closing it.
    with suppress(BlockingIOError, FileNotFoundError), (folder / _HELD).open("w", encoding="utf-8") as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        shutil.rmtree(folder, ignore_errors=True)
