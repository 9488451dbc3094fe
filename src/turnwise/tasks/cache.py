"""Things made once on disk, by whichever thread or process comes first, and whole or not at all."""

import fcntl
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path


def default_cache_dir() -> Path:
    """`$TURNWISE_CACHE`, or `~/.cache/turnwise`."""
    return Path(os.environ.get("TURNWISE_CACHE") or Path.home() / ".cache" / "turnwise")


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock that stands beside `path`; it goes with its holder, however that ends."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with (path.parent / f".{path.name}.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def made_once(path: Path, build: Callable[[Path], None]) -> Path:
    """The folder at `path`, built in a folder beside it and renamed when it does not exist yet.

    Safe under concurrent callers, threads and processes; a killed build leaves nothing that is taken for whole.
    """
    if path.exists():
        return path
    with locked(path):
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
