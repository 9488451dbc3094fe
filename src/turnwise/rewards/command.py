"""A row's own test command, read: whether it is pytest or another Python program that we can look into as it runs."""

import re
import shlex
from dataclasses import dataclass, replace
from pathlib import PurePosixPath

_PIECE = re.compile(r"'[^']*'|\"(?:[^\"\\]|\\.)*\"|\\.|&&|.", re.DOTALL)
# What a shell would do more with than split it into words.
_SHELL = re.compile(r"[;&|<>$`(){}*?~\n#!]")
_ASSIGNMENT = re.compile(r"[A-Za-z_]\w*=.*", re.DOTALL)
_PYTHON = re.compile(r"(?:.*/)?python[\d.]*")
# Python's options before the program, but for those that would keep our own modules from being found (-I, -P).
_FLAG = re.compile(r"-[BbdEOqsSuvx]+|-[WX].*")
_PYTEST = re.compile(r"(?:.*/)?(?:pytest|py\.test)")


@dataclass(frozen=True)
class PythonCommand:
    """A command that is one plain call of a Python program.

    `program` is "pytest", or what is run: ("-m", "unittest"), ("tests/runtests.py",). `here`: whether the current
    directory is importable, as `python -m pytest` has it and `pytest` has not. `folder`: where it runs, told from the
    repository's root; "." is the root.

    >>> read_command("A=1 python -W ignore -m pytest -rA tests")  # doctest: +NORMALIZE_WHITESPACE
    PythonCommand(assignments=('A=1',), python=('python', '-W', 'ignore'), program=('pytest',),
                  arguments=('-rA', 'tests'), here=True, folder='.')
    """

    assignments: tuple[str, ...]
    python: tuple[str, ...]
    program: tuple[str, ...]
    arguments: tuple[str, ...]
    here: bool
    folder: str = "."

    @property
    def is_pytest(self) -> bool:
        """Whether it is pytest that runs."""
        return self.program == ("pytest",)


def read_command(command: str) -> PythonCommand | None:
    """The command's pieces; None where it is anything else than one plain call of a Python program.

    That call may come after changes of the folder and of the environment.

    >>> read_command("pytest -rA tests/test_api.py").arguments
    ('-rA', 'tests/test_api.py')
    >>> read_command("./tests/runtests.py --verbosity 2 admin").program
    ('./tests/runtests.py',)
    >>> read_command("export CI=1; cd tests && pytest").folder
    'tests'
    >>> read_command("pytest a; pytest b") is None, read_command("tox -e py39") is None
    (True, True)
    """
    *before, last = _steps(command) or [""]
    assignments: tuple[str, ...] = ()
    folder = "."
    for step in before:
        words = [] if _needs_shell(step) else shlex.split(step)
        if words[:1] == ["export"] and all(_ASSIGNMENT.fullmatch(word) for word in words[1:]):
            assignments += tuple(words[1:])
        elif words[:1] == ["cd"] and len(words) == 2 and _is_below(words[1]):
            folder = str(PurePosixPath(folder, words[1]))
        else:
            return None
    read = None if _needs_shell(last) else _by_program(last)
    return read and replace(read, assignments=(*assignments, *read.assignments), folder=folder)


def _steps(command: str) -> list[str]:
    """What the command does one after the other."""
    steps = [""]
    for piece in _PIECE.findall(command):
        if piece in ("&&", ";", "\n"):
            steps.append("")
        else:
            steps[-1] += piece
    return [step for step in steps if step.strip()]


def _is_below(folder: str) -> bool:
    path = PurePosixPath(folder)
    return not path.is_absolute() and ".." not in path.parts and not folder.startswith("-")


def _by_program(command: str) -> PythonCommand | None:
    words = shlex.split(command)
    count = next((i for i, word in enumerate(words) if not _ASSIGNMENT.fullmatch(word)), len(words))
    assignments, words = tuple(words[:count]), words[count:]
    if not words:
        return None
    if _PYTEST.fullmatch(words[0]):
        return PythonCommand(assignments, ("python",), ("pytest",), tuple(words[1:]), here=False)
    if _PYTHON.fullmatch(words[0]):
        return _by_interpreter(assignments, words)
    if "/" in words[0] and not words[0].startswith("/"):
        return PythonCommand(assignments, ("python",), (words[0],), tuple(words[1:]), here=False)
    return None


def _by_interpreter(assignments: tuple[str, ...], words: list[str]) -> PythonCommand | None:
    at = 1
    while at < len(words) and _FLAG.fullmatch(words[at]):
        at += 2 if words[at] in ("-W", "-X") else 1
    python, rest = tuple(words[:at]), words[at:]
    if rest and re.fullmatch("-m.+", rest[0]):
        rest = ["-m", rest[0][2:], *rest[1:]]
    if rest[:1] == ["-m"] and len(rest) > 1:
        program = ("pytest",) if rest[1] in ("pytest", "py.test") else ("-m", rest[1])
        return PythonCommand(assignments, python, program, tuple(rest[2:]), here=True)
    if rest and not rest[0].startswith("-"):
        return PythonCommand(assignments, python, (rest[0],), tuple(rest[1:]), here=False)
    return None


def _needs_shell(command: str) -> bool:
    """Whether more than words and quotes stands in the command."""
    try:
        shlex.split(command)
    except ValueError:
        return True
    bare = re.sub(r"'[^']*'|\"[^\"$`\\]*\"|\\.", "", command.strip())
    return _SHELL.search(bare) is not None
