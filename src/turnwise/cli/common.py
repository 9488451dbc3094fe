"""What verbs share: how they end before their time or with something left to try again, and names made of words."""

import re
import sys
import textwrap
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from turnwise.errors import InputError

if TYPE_CHECKING:
    from turnwise.store import InfraFailure

NAME_CHARS = 100  # file systems take 255 bytes, and ours are parts of names
_DETAIL_CHARS = 400
STOPPED = 130  # the shell's own code for "ended by Ctrl-C"

Select = Annotated[
    str | None,
    typer.Option(metavar="NAME|REGEX", help="Only a named selection, such as `verified-50`, or ids that match."),
]


@contextmanager
def until_stopped(words: str) -> Iterator[None]:
    """Ctrl-C within ends the verb with the exit code `STOPPED` and `words` on what is left."""
    try:
        yield
    except KeyboardInterrupt:
        print(f"\nstopped; {words}", file=sys.stderr)
        raise typer.Exit(STOPPED) from None


def tell_failures(failures: "Collection[InfraFailure]") -> None:
    """Print how many of each cause there are, and what was said of the first."""
    for cause in dict.fromkeys(failure.cause for failure in failures):
        found = [failure for failure in failures if failure.cause == cause]
        said = textwrap.shorten(found[0].detail, _DETAIL_CHARS, placeholder=" …")
        print(f"turnwise: {len(found)} {cause}; {found[0].episode_id}: {said}", file=sys.stderr)


def leave_if_failed(failed: int, total: int, what: str, at_fault: int = 0) -> None:
    """End the verb with exit code 1 where the machine failed some of the `total` things of a kind (`what`), or some
    have rows `at_fault`."""
    if failed:
        print(f"turnwise: the machine failed {failed} of {total} {what}; the same command tries again", file=sys.stderr)
    if at_fault:
        print(f"turnwise: the tasks of {at_fault} of {total} {what} are at fault (above)", file=sys.stderr)
    if failed or at_fault:
        raise typer.Exit(1)


def slug(text: str) -> str:
    """A name for folders and files that tells of `text`, of a long one by its end.

    >>> slug("Qwen/Qwen3-8B")
    'qwen-qwen3-8b'
    """
    return re.sub(r"[^a-z0-9_.-]+", "-", text.lower())[-NAME_CHARS:].strip("-.")


def plain_name(option: str, given: str) -> str:
    """A name that the user gave for files. Raises InputError, naming the option, where it is none."""
    if not re.fullmatch(r"[A-Za-z0-9_-][A-Za-z0-9_.-]*", given):
        raise InputError(f"{option} {given!r}: should be made of letters, digits, '_', '-' and '.', no '.' first")
    if len(given) > NAME_CHARS:
        raise InputError(f"{option}: is {len(given)} characters long, and should have {NAME_CHARS} at most")
    return given
