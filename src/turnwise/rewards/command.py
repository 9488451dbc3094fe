"""A row's own test command, read: whether it is pytest, so that our plugin can look on from outside the repository."""

import re
import shlex
from dataclasses import dataclass

# What a shell would do more with than split it into words.
_SHELL = re.compile(r"[;&|<>$`(){}*?~\n#!]")
_ASSIGNMENT = re.compile(r"[A-Za-z_]\w*=.*", re.DOTALL)
_PYTHON = re.compile(r"(?:.*/)?python[\d.]*")
_PYTEST = re.compile(r"(?:.*/)?(?:pytest|py\.test)")


@dataclass(frozen=True)
class PytestCommand:
    """A command that is one plain call of pytest.

    `here`: whether the current directory is importable, as `python -m pytest` has it and `pytest` has not.

    >>> read_pytest("A=1 python -W ignore -m pytest -rA tests")
    PytestCommand(assignments=('A=1',), python=('python', '-W', 'ignore'), arguments=('-rA', 'tests'), here=True)
    """

    assignments: tuple[str, ...]
    python: tuple[str, ...]
    arguments: tuple[str, ...]
    here: bool


def read_pytest(command: str) -> PytestCommand | None:
    """The command's pieces; None where it is anything else than one plain call of pytest.

    >>> read_pytest("pytest -rA tests/test_api.py").arguments
    ('-rA', 'tests/test_api.py')
    >>> read_pytest("./tests/runtests.py --verbosity 2 admin") is None
    True
    """
    if _unquoted_shell(command):
        return None
    words = shlex.split(command)
    count = next((i for i, word in enumerate(words) if not _ASSIGNMENT.fullmatch(word)), len(words))
    assignments, words = tuple(words[:count]), words[count:]
    if not words:
        return None
    if _PYTEST.fullmatch(words[0]):
        return PytestCommand(assignments, ("python",), tuple(words[1:]), here=False)
    if _PYTHON.fullmatch(words[0]) and "-m" in words:
        at = words.index("-m")
        if words[at + 1 : at + 2] in (["pytest"], ["py.test"]):
            return PytestCommand(assignments, tuple(words[:at]), tuple(words[at + 2 :]), here=True)
    return None


def _unquoted_shell(command: str) -> bool:
    """Whether more than words and quotes stands in the command."""
    try:
        shlex.split(command)
    except ValueError:
        return True
    bare = re.sub(r"'[^']*'|\"[^\"$`\\]*\"|\\.", "", command.strip())
    return _SHELL.search(bare) is not None
