"""Where the heredocs of a shell text stand, as bash reads it (bash(1), "Here Documents" and "QUOTING").

A reader of quotes, substitutions, arithmetic and comments, no parser: it knows which `<<` is a redirection, what ends
its heredoc, and on which line the body begins.
"""

import re
from dataclasses import dataclass, field

_BACKQUOTED = re.compile(r"`(?:[^`\\]|\\.)*+(?:`|\Z)", re.DOTALL)
_SINGLE_QUOTED = re.compile(r"'[^']*+(?:'|\Z)")
_ANSI_QUOTED = re.compile(r"\$'(?P<text>(?:[^'\\]|\\.)*+)(?:'|\Z)", re.DOTALL)
_PARENTHESES = r"\((?:[^()]++|\((?:[^()]++|\((?:[^()]++|\([^()]*+\))*+\))*+\))*+\)"
_ARITHMETIC = re.compile(rf"\((?={_PARENTHESES}\)){_PARENTHESES}\)|\[[^\]\n]*+\]")
_OPERATOR = re.compile(r"<<(?P<dash>-?)(?:[ \t]|\\\n)*+")
_WORD = re.compile(
    r"""'(?P<single>[^']*)'|\$'(?P<ansi>(?:[^'\\]|\\.)*)'|\$?"(?P<double>(?:[^"\\]|\\.)*)"|\\(?P<escaped>.)"""
    r"""|(?P<plain>[^ \t\n;&|()<>'"\\])""",
    re.DOTALL,
)
_ANSI_ESCAPE = re.compile(
    r"\\(?:([0-7]{1,3})|x([0-9a-fA-F]{1,2})|u([0-9a-fA-F]{1,4})|U([0-9a-fA-F]{1,8})|(.))", re.DOTALL
)
_ANSI_LETTERS = {"a": "\a", "b": "\b", "e": "\033", "E": "\033", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v"}
# What means something in each context; everything up to the next of these is skipped.
_NEXT = {
    "commands": re.compile(r"[\\'\"`$#()<\n]"),
    '"': re.compile(r"[\\\"`$]"),
    "{": re.compile(r"[\\'\"`$}]"),
}
_BEFORE_COMMENT = " \t\n;&|()<>"


@dataclass(frozen=True)
class Heredoc:
    """The body of a heredoc and the line that ends it: `text[start:end]`; `end` is None where no line ends it.

    >>> text = "cat <<'E-1' > a.md\\n```\\nE-1\\nls"
    >>> [text[found.start : found.end] for found in heredocs(text)]
    ['```\\nE-1\\n']
    """

    start: int
    end: int | None


def heredocs(text: str) -> list[Heredoc]:
    """The heredocs of a shell text in their order. One that does not end is the last: the rest is its body."""
    reader = _Reader(text)
    while reader.at < len(text) and not reader.unended:
        reader.step()
    return reader.found


@dataclass(frozen=True)
class _Delimiter:
    word: str
    quoted: bool
    dash: bool


@dataclass
class _Context:
    """What the reader stands in: commands, a double-quoted string ('"') or a parameter expansion ("{").

    `closes` is what a closing parenthesis ends here. `pending` are the heredocs whose bodies begin on the next line.
    `substituted`: this or a context around it is a command substitution.
    """

    kind: str = "commands"
    closes: str = ""
    pending: list[_Delimiter] = field(default_factory=list)
    substituted: bool = False


class _Reader:
    def __init__(self, text: str) -> None:
        self.text, self.at = text, 0
        self.found: list[Heredoc] = []
        self.unended = False
        self._contexts = [_Context()]

    def step(self) -> None:
        """Read on to behind the next character that means something."""
        here = self._contexts[-1]
        special = _NEXT[here.kind].search(self.text, self.at)
        if special is None:
            self.at = len(self.text)
            return
        self.at = special.start()
        char = special[0]
        if char == "\\":
            self.at += 2
        elif char == "`":
            self._skip(_BACKQUOTED)
        elif char == "$":
            self._dollar(here)
        elif char == '"':
            self._quote(here)
        elif char == "}":
            self._leave()
        elif char == "'":
            self._single_quote(here)
        else:
            self._command_character(char, here)

    def _command_character(self, char: str, here: _Context) -> None:
        if char == "#":
            self._comment()
        elif char == "(":
            if not self._skip(_ARITHMETIC):
                self._enter(_Context(closes="subshell", pending=here.pending))
        elif char == ")":
            self._close(here)
        elif char == "<":
            self._redirection(here)
        else:
            self.at += 1
            self._read_bodies(here)

    def _skip(self, pattern: re.Pattern[str], offset: int = 0) -> bool:
        found = pattern.match(self.text, self.at + offset)
        if found is not None:
            self.at = found.end()
        return found is not None

    def _enter(self, context: _Context, length: int = 1) -> None:
        context.substituted = context.closes == "substitution" or self._contexts[-1].substituted
        self._contexts.append(context)
        self.at += length

    def _leave(self) -> None:
        self._contexts.pop()
        self.at += 1

    def _quote(self, here: _Context) -> None:
        if here.kind == '"':
            self._leave()
        else:
            self._enter(_Context('"'))

    def _single_quote(self, here: _Context) -> None:
        """In a parameter expansion inside a double-quoted string it is an ordinary character."""
        if here.kind == "{" and self._contexts[-2].kind == '"':
            self.at += 1
        else:
            self._skip(_SINGLE_QUOTED)

    def _dollar(self, here: _Context) -> None:
        if here.kind != '"' and self._skip(_ANSI_QUOTED):
            return
        if self._skip(_ARITHMETIC, 1):
            return
        following = self.text[self.at + 1 : self.at + 2]
        if following == "(":
            self._enter(_Context(closes="substitution"), 2)
        elif following == "{":
            self._enter(_Context("{"), 2)
        else:
            self.at += 2 if following in ("#", "$") else 1

    def _comment(self) -> None:
        if self.at == 0 or self.text[self.at - 1] in _BEFORE_COMMENT:
            end = self.text.find("\n", self.at)
            self.at = len(self.text) if end < 0 else end
        else:
            self.at += 1

    def _close(self, here: _Context) -> None:
        if here.closes:
            self._leave()
        else:
            self.at += 1

    def _redirection(self, here: _Context) -> None:
        if self.text.startswith("<<<", self.at):
            self.at += 3
            return
        operator = _OPERATOR.match(self.text, self.at)
        if operator is None:
            self.at += 1
            return
        self.at = operator.end()
        delimiter = self._delimiter(bool(operator["dash"]))
        if delimiter is not None:
            here.pending.append(delimiter)

    def _delimiter(self, dash: bool) -> _Delimiter | None:
        """The word behind the operator, without its quotes; None where there is none."""
        parts, quoted, start = [], False, self.at
        while (piece := _WORD.match(self.text, self.at)) is not None:
            if piece["plain"] == "#" and self.at == start:
                return None
            text, quotes = _unquoted(piece)
            parts.append(text)
            quoted = quoted or quotes
            self.at = piece.end()
        return None if self.at == start else _Delimiter("".join(parts), quoted, dash)

    def _read_bodies(self, here: _Context) -> None:
        """At the start of a line: the bodies of the heredocs that were opened before it."""
        while here.pending and not self.unended:
            start = self.at
            end = self._end_of_body(here.pending.pop(0), here.substituted)
            self.found.append(Heredoc(start, end))
            self.unended = end is None
            self.at = len(self.text) if end is None else end

    def _end_of_body(self, delimiter: _Delimiter, in_substitution: bool) -> int | None:
        """Behind the line that is the delimiter; in a substitution, its parenthesis may stand on the same line."""
        at = self.at
        while at < len(self.text):
            end, line = self._line(at, joined=not delimiter.quoted)
            unindented = line.lstrip("\t") if delimiter.dash else line
            if unindented == delimiter.word:
                return end
            if in_substitution and unindented.startswith(delimiter.word) and ")" in unindented[len(delimiter.word) :]:
                return at + len(line) - len(unindented) + len(delimiter.word)
            at = end
        return None

    def _line(self, at: int, joined: bool) -> tuple[int, str]:
        """The line at `at` and where the next begins; `joined`: a line that ends with a backslash goes on."""
        parts: list[str] = []
        while True:
            stop = self.text.find("\n", at)
            stop = len(self.text) if stop < 0 else stop
            line, at = self.text[at:stop], min(stop + 1, len(self.text))
            if not joined or stop == len(self.text) or (len(line) - len(line.rstrip("\\"))) % 2 == 0:
                return at, "".join([*parts, line])
            parts.append(line[:-1])


def _unquoted(piece: re.Match[str]) -> tuple[str, bool]:
    """What a part of a delimiter says, and whether it was quoted."""
    if piece["single"] is not None:
        return piece["single"], True
    if piece["ansi"] is not None:
        return _ANSI_ESCAPE.sub(_ansi, piece["ansi"]), True
    if piece["double"] is not None:
        return re.sub(r'\\([$`"\\\n])', lambda found: found[1].strip("\n"), piece["double"]), True
    if piece["escaped"] is not None:
        return piece["escaped"].strip("\n"), piece["escaped"] != "\n"
    return piece["plain"], False


def _ansi(escape: re.Match[str]) -> str:
    octal, *hexadecimal, letter = escape.groups()
    if letter is not None:
        return _ANSI_LETTERS.get(letter, letter if letter in "\\'\"?" else "\\" + letter)
    return chr(int(octal, 8) if octal else int(next(filter(None, hexadecimal)), 16))
