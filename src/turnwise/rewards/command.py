"""Finds the call of pytest in a row's own test command, so that our recorder can stand in its place."""

import re
import shlex
from dataclasses import dataclass

# Quoted text, escaped characters, and the operators that end a simple command; anything else is a character.
_PIECE = re.compile(r"'[^']*'|\"(?:[^\"\\]|\\.)*\"|\\.|&&|\|\||[;\n|&]|.", re.DOTALL)
_ENDS = ("&&", "||", ";", "\n", "|", "&")
_ASSIGNMENT = re.compile(r"[A-Za-z_]\w*=")
_PYTHON = re.compile(r"(?:.*/)?python[\d.]*")
_PYTHON_FLAG = re.compile(r"-[BbdEOqsSuvx]+|-[WX].*")
_PYTEST = re.compile(r"(?:.*/)?(?:pytest|py\.test)")


@dataclass(frozen=True)
class PytestCall:
    """A test command with one call of pytest in it: `before` and `after` are the text around the words that call it.

    `python` are the words that call Python. `module`: it is called as `python -m pytest`, which makes the current
    directory importable, as `pytest` does not. `arguments` are pytest's.

    >>> find_pytest("A=1 python -W ignore -m pytest -rA tests")  # doctest: +NORMALIZE_WHITESPACE
    PytestCall(before='A=1 ', python=('python', '-W', 'ignore'), module=True, after=' -rA tests',
               arguments=('-rA', 'tests'))
    """

    before: str
    python: tuple[str, ...]
    module: bool
    after: str
    arguments: tuple[str, ...]

    def replaced_by(self, script: str, option: str = "") -> str:
        """The command in which a script is run instead, which gets "module" or "script", `option` behind that, and
        pytest's arguments."""
        words = shlex.join([*self.python, script, ("module" if self.module else "script") + option])
        return f"{self.before}{words}{self.after}"


def find_pytest(command: str) -> PytestCall | None:
    """The command's one call of pytest; None where there is none, or more than one.

    >>> find_pytest("export CI=1; cd tests && pytest -x").before
    'export CI=1; cd tests && '
    >>> find_pytest("pytest a; pytest b") is None, find_pytest("tox -e py39") is None
    (True, True)
    """
    found = [call for start, text in _simple_commands(command) if (call := _call(command, start, text)) is not None]
    return found[0] if len(found) == 1 else None


def _simple_commands(command: str) -> list[tuple[int, str]]:
    """The simple commands of a shell's text, each with its place."""
    found, place = [(0, "")], 0
    for piece in _PIECE.findall(command):
        place += len(piece)
        if piece in _ENDS:
            found.append((place, ""))
        else:
            found[-1] = (found[-1][0], found[-1][1] + piece)
    return found


def _call(command: str, start: int, text: str) -> PytestCall | None:
    words = [(match.start(), match[0]) for match in re.finditer(r"(?:'[^']*'|\"[^\"]*\"|\\.|[^\s'\"\\])+", text)]
    plain = [_plain(word) for _, word in words]
    first = next((i for i, (_, word) in enumerate(words) if not _ASSIGNMENT.match(word)), len(words))
    if first == len(words):
        return None
    last, python, module = _program(plain, first)
    if not python:
        return None
    end = start + words[last][0] + len(words[last][1])
    return PytestCall(command[: start + words[first][0]], python, module, command[end:], tuple(plain[last + 1 :]))


def _program(words: list[str], first: int) -> tuple[int, tuple[str, ...], bool]:
    """Where the words end that call pytest, what calls Python, and whether it is called as a module; () for no call."""
    if _PYTEST.fullmatch(words[first]):
        folder, slash, _ = words[first].rpartition("/")
        return first, (f"{folder}{slash}python",), False
    if not _PYTHON.fullmatch(words[first]):
        return first, (), False
    at = first + 1
    while at < len(words) and _PYTHON_FLAG.fullmatch(words[at]):
        at += 2 if words[at] in ("-W", "-X") else 1
    python = tuple(words[first:at])
    if words[at : at + 1] in (["-mpytest"], ["-mpy.test"]):
        return at, python, True
    if words[at : at + 2] in (["-m", "pytest"], ["-m", "py.test"]):
        return at + 1, python, True
    return at, (python if at < len(words) and _PYTEST.fullmatch(words[at]) else ()), False


def _plain(word: str) -> str:
    try:
        return "".join(shlex.split(word))
    except ValueError:
        return word
