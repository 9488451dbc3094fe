"""From a response's text to its one command (PAPER.md, appendix F)."""

import re
from bisect import bisect_left
from collections import defaultdict
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
    text = _Text(command.split("\n"))
    kept, at = [], 0
    while at < len(text.lines):
        kept.append(text.lines[at])
        at = text.after_heredocs(at)
    return "\n".join(kept)


def _blocks(lines: list[str]) -> list[str | None]:
    """The body of every block that is opened; None for one that is not closed."""
    text = _Text(lines)
    blocks: list[str | None] = []
    at = 0
    while at < len(lines):
        if not _OPENING.fullmatch(lines[at]):
            at += 1
            continue
        stop = text.closing_line(at + 1)
        blocks.append(None if stop is None else "\n".join(lines[at + 1 : stop]))
        at = at + 1 if stop is None else stop + 1
    return blocks


class _Text:
    """Lines, and where each of them stands: a response may open thousands of heredocs and end none."""

    def __init__(self, lines: list[str]) -> None:
        self.lines = lines
        self._places: defaultdict[str, list[int]] = defaultdict(list)
        self._openings: list[int] = []
        for index, line in enumerate(lines):
            self._places[line].append(index)
            if line.startswith("\t"):
                self._places["\t" + line.lstrip("\t")].append(index)
            if _OPENING.fullmatch(line):
                self._openings.append(index)

    def closing_line(self, at: int) -> int | None:
        """The index of the line that closes the block whose body starts at `at`."""
        while at < len(self.lines):
            if _CLOSING.fullmatch(self.lines[at]):
                return at
            if _OPENING.fullmatch(self.lines[at]):
                return None
            at = self.after_heredocs(at)
        return None

    def after_heredocs(self, at: int) -> int:
        """The index after line `at` and the bodies of the heredocs that start on it.

        A heredoc whose end does not come, or not before another block opens, is not taken for one.
        """
        after = at + 1
        for start in _HEREDOC.finditer(self.lines[at]):
            stop = self._heredoc_end(after, start["word"], bool(start["dash"]))
            if stop is None:
                break
            after = stop + 1
        return after

    def _heredoc_end(self, at: int, word: str, dash: bool) -> int | None:
        ends = [word, *(["\t" + word] if dash else [])]
        found = [_first(self._places[text], at) for text in ends if text in self._places]
        stop = min((index for index in found if index is not None), default=None)
        opening = _first(self._openings, at)
        return None if stop is None or (opening is not None and opening < stop) else stop


def _first(places: list[int], at: int) -> int | None:
    """The first of these sorted indices from `at` on."""
    place = bisect_left(places, at)
    return places[place] if place < len(places) else None
