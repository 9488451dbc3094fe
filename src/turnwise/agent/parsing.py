"""From a response's text to its one command (PAPER.md, appendix F)."""

import re
from dataclasses import dataclass

from turnwise.agent.heredocs import heredocs
from turnwise.types import FormatError

_OPENING = re.compile(r"^```command[^\S\n]*$", re.MULTILINE)
_CLOSING = re.compile(r"^```[^\S\n]*$", re.MULTILINE)
_LINE_END = re.compile(r"\r\n?")
# How families of models mark reasoning: before the answer, and with the opening tag in the prompt or in the response.
_REASONING = (
    ("<think>", "</think>"),
    ("<thinking>", "</thinking>"),
    ("<thought>", "</thought>"),
    ("<reasoning>", "</reasoning>"),
    ("<seed:think>", "</seed:think>"),
    ("[THINK]", "[/THINK]"),
    ("◁think▷", "◁/think▷"),
    ("<|channel|>analysis<|message|>", "<|channel|>final<|message|>"),
)


@dataclass(frozen=True)
class ParsedResponse:
    """The command of a response, or the format error that it has instead; exactly one is set."""

    command: str | None = None
    error: FormatError | None = None


def parse_response(text: str) -> ParsedResponse:
    r"""The command between a line "```command" and the next line "```" that does not stand in a heredoc.

    The reasoning that a response begins with is not looked at: drafts in it are no commands. A block that is empty or
    does not end counts as none. Lines may end with CR LF or CR, too.

    >>> parse_response("Look.\n```command\nls -a\n```").command
    'ls -a'
    >>> parse_response("Look.").error
    <FormatError.NO_COMMAND: 'no_command'>
    """
    blocks = _blocks(_without_reasoning(_LINE_END.sub("\n", text)))
    if len(blocks) > 1:
        return ParsedResponse(error=FormatError.MULTIPLE_COMMANDS)
    command = blocks[0].text.strip("\n") if blocks and blocks[0].closed else ""
    return ParsedResponse(command) if command.strip() else ParsedResponse(error=FormatError.NO_COMMAND)


def without_heredocs(command: str) -> str:
    """The command without the bodies of its heredocs: what the shell reads as words."""
    kept, at = [], 0
    for heredoc in heredocs(command):
        kept.append(command[at : heredoc.start])
        at = len(command) if heredoc.end is None else heredoc.end
    return "".join([*kept, command[at:]])


@dataclass(frozen=True)
class _Block:
    """A block that is opened at `start`; it goes to `end` and is `closed` there, or is not."""

    text: str
    start: int
    end: int
    closed: bool


def _blocks(text: str) -> list[_Block]:
    """Every block that is opened, in their order."""
    blocks: list[_Block] = []
    opening = _OPENING.search(text)
    while opening is not None:
        begin = opening.end() + 1
        following = _OPENING.search(text, begin)
        body = text[begin : following.start() if following else len(text)]
        closing = _closing(body)
        end = begin + (closing.end() if closing else 0)
        blocks.append(_Block(body[: closing.start()] if closing else "", opening.start(), end, closing is not None))
        opening = _OPENING.search(text, end)
    return blocks


def _closing(body: str) -> re.Match[str] | None:
    """The first fence that is not in a heredoc; a heredoc that nothing ends before another block is not one."""
    bodies = [(heredoc.start, heredoc.end) for heredoc in heredocs(body) if heredoc.end is not None]
    closing = _CLOSING.search(body)
    for start, end in bodies:
        if closing is None or closing.start() < start:
            break
        if closing.start() < end:
            closing = _CLOSING.search(body, end)
    return closing


def _without_reasoning(text: str) -> str:
    """What follows the reasoning that the text begins with; a tag anywhere else is text."""
    stripped = text.lstrip()
    for opening, closing in _REASONING:
        if stripped.startswith(opening):
            end = _end_of_reasoning(stripped, closing)
            return text if end is None else stripped[end:]
    for opening, closing in _REASONING:  # opened in the prompt
        end = _end_of_reasoning(text, closing, alone=True)
        if end is not None and opening not in text[:end]:
            return text[end:]
    return text


def _end_of_reasoning(text: str, closing: str, alone: bool = False) -> int | None:
    """Behind the tag that closes reasoning: the first that is neither in quotes nor in a command's block.

    `alone`: nothing says that the text is reasoning but the tag, so it counts where it ends its line, or where a
    command follows it.
    """
    blocks = [block for block in _blocks(text) if block.closed] if closing in text else []
    for tag in re.finditer(re.escape(closing), text):
        before, after = text[: tag.start()][-1:], text[tag.end() :][:1]
        in_quotes = before == after and before in ("'", '"', "`")
        in_block = any(block.start < tag.start() < block.end for block in blocks)
        ends_line = text[tag.end() :].partition("\n")[0].strip() == ""
        command_follows = bool(blocks) and blocks[-1].start >= tag.end()
        if not in_quotes and not in_block and (not alone or ends_line or command_follows):
            return tag.end()
    return None
