"""What verbs share: how they end before their time or with something left to try again, and names made of words."""

import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import typer

from turnwise.errors import InputError

STOPPED = 130  # the shell's own code for "ended by Ctrl-C"


@contextmanager
def until_stopped(words: str) -> Iterator[None]:
    """Ctrl-C within ends the verb with the exit code `STOPPED` and `words` on what is left."""
    try:
        yield
    except KeyboardInterrupt:
        print(f"\nstopped; {words}", file=sys.stderr)
        raise typer.Exit(STOPPED) from None


def leave_if_failed(failed: int, total: int, what: str) -> None:
    """End the verb with exit code 1 where the machine failed some of the `total` things of a kind (`what`)."""
    if failed:
        print(f"turnwise: the machine failed {failed} of {total} {what}; the same command tries again", file=sys.stderr)
        raise typer.Exit(1)


def slug(text: str) -> str:
    """A name for folders and files that tells of `text`.

    >>> slug("Qwen/Qwen3-8B")
    'qwen-qwen3-8b'
    """
    return re.sub(r"[^a-z0-9_.-]+", "-", text.lower()).strip("-.")


def plain_name(option: str, given: str) -> str:
    """A name that the user gave for files. Raises InputError, naming the option, where it is none."""
    if not re.fullmatch(r"[A-Za-z0-9_-][A-Za-z0-9_.-]*", given):
        raise InputError(f"{option} {given!r}: should be made of letters, digits, '_', '-' and '.', no '.' first")
    return given
