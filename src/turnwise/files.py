"""Files that appear whole or not at all (floor 0)."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from turnwise.errors import InputError, StoreError


def readable(text: str) -> str:
    """A text that holds names of files as `os.fsdecode` gives them, with their bytes that are no UTF-8 written out.

    >>> readable(os.fsdecode(b"caf\\xe9.py"))
    'caf\\\\xe9.py'
    """
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def require_regular(path: Path) -> None:
    """Raise InputError where something lies at `path` that is no regular file: a folder, a device, a pipe."""
    if path.exists() and not path.is_file():
        raise InputError(f"{path}: is no regular file, and not replaced by one; name another")


@contextmanager
def write_whole(path: Path) -> Iterator[IO[bytes]]:
    """A file to fill, in a folder made if needed: it takes its place when the block ends, and goes where that raises.

    What a link leads to is written, not the link. Raises StoreError where it cannot be written, InputError where no
    regular file lies at `path`.
    """
    require_regular(path)
    path = path.resolve() if path.is_symlink() else path
    part = path.with_name(path.name + f".{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with part.open("wb") as out:
                yield out
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)
    except OSError as error:
        raise StoreError(f"cannot write {path}: {error.strerror}") from error


def write_text_whole(path: Path, text: str) -> None:
    """Write a file of UTF-8 text as `write_whole` does."""
    with write_whole(path) as out:
        out.write(text.encode())
