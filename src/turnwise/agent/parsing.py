"""From a response's text to its one command (PAPER.md, appendix F)."""

import re
from dataclasses import dataclass

from turnwise.types import FormatError

_OPENING = re.compile(r"```command\s*")
_CLOSING = re.compile(r"```\s*")
_HEREDOC = re.compile(r"(?<!<)<<(?P<dash>-?)\s*(?P<quote>['\"\\]?)(?P<word>\w+)")


@dataclass(frozen=True)
class ParsedResponse:
    """The command of a response, or the format error that it has instead; exactly one is set."""

    command: str | None = None
    error: FormatError | None = None


def parse_response(text: str) -> ParsedResponse:
    r"""The command between a line "```command" and the next line "```" that does not stand in a heredoc.

    Reasoning up to the last `</think>` is not looked at: drafts in it are no commands. A block that is empty or does
    not end counts as none.

    >>> parse_response("Look.\n```command\nls -a\n```").command
    'ls -a'
    >>> parse_response("Look.").error
    <FormatError.NO_COMMAND: 'no_command'>
    """
    blocks = _blocks(text.rpartition("</think>")[2].split("\n"))
    if len(blocks) > 1:
        return ParsedResponse(error=FormatError.MULTIPLE_COMMANDS)
    command = blocks[0].strip("\n") if blocks and blocks[0] is not None else ""
    return ParsedResponse(command) if command.strip() else ParsedResponse(error=FormatError.NO_COMMAND)


def without_heredocs(command: str) -> str:
    """The command without the bodies of its heredocs: what the shell reads as words."""
    lines = command.split("\n")
    kept, at = [], 0
    while at < len(lines):
        kept.append(lines[at])
        at = _after_heredocs(lines, at)
    return "\n".join(kept)


def _blocks(lines: list[str]) -> list[str | None]:
    """The body of every block that is opened; None for one that is not closed."""
    blocks: list[str | None] = []
    at = 0
    while at < len(lines):
        if not _OPENING.fullmatch(lines[at]):
            at += 1
            continue
        stop = _closing_line(lines, at + 1)
        blocks.append(None if stop is None else "\n".join(lines[at + 1 : stop]))
        at = at + 1 if stop is None else stop + 1
    return blocks


def _closing_line(lines: list[str], at: int) -> int | None:
    """The index of the line that closes the block whose body starts at `at`."""
    while at < len(lines):
        if _CLOSING.fullmatch(lines[at]):
            return at
        if _OPENING.fullmatch(lines[at]):
            return None
        at = _after_heredocs(lines, at)
    return None


def _after_heredocs(lines: list[str], at: int) -> int:
    """The index after line `at` and the bodies of the heredocs that start on it.

    A heredoc whose end does not come, or not before another block opens, is not taken for one.
    """
    after = at + 1
    for start in _HEREDOC.finditer(lines[at]):
        stop = _heredoc_end(lines, after, start["word"], bool(start["dash"]))
        if stop is None:
            break
        after = stop + 1
    return after


def _heredoc_end(lines: list[str], at: int, word: str, dash: bool) -> int | None:
    for index in range(at, len(lines)):
        if (lines[index].lstrip("\t") if dash else lines[index]) == word:
            return index
        if _OPENING.fullmatch(lines[index]):
            return None
    return None
