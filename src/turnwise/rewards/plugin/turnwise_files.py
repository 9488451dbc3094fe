"""Whose code is whose, by the files that it lies in. Runs inside the sandbox, in the tests' own process.

What a code object says of its own file is not believed: it can be made to say anything, and a file can be made or
linked while the tests run. Needs Python 3.6 or later, nothing else.
"""

import ast
import functools
import os
import sys
from pathlib import Path
from types import CodeType
from typing import Any, Callable, Dict, Iterable, Iterator, Set, Tuple

# Code under test may replace them.
_COMPILE, _OPEN, _STAT, _LSTAT = compile, open, os.stat, os.lstat
_STATVFS, _READ_ONLY = os.statvfs, os.ST_RDONLY
_REAL, _EXISTS = os.path.realpath, os.path.lexists


def read_suspects(path: str) -> Iterator[str]:
    """The files that a patch wrote, from what `git apply --numstat -z` said of it: "ADDED TAB REMOVED TAB PATH NUL"."""
    if path:
        with Path(path).open("rb") as file:
            yield from (os.fsdecode(entry.split(b"\t", 2)[2]) for entry in file.read().split(b"\0") if entry)


class Files:
    """The files that the patch under judgement touches, and those that are as they were before the tests ran.

    `suspects` are paths relative to the current directory.
    """

    __slots__ = ("_began", "_claimed", "_known", "_moved", "_root", "_suspects")

    def __init__(self, suspects: Iterable[str]) -> None:
        self._root = str(Path.cwd())  # tests may change it
        self._suspects = frozenset(_REAL(_under(self._root, path)) for path in suspects)
        self._moved = frozenset(_identities(self._suspects))  # they may be found under other names
        self._known: Dict[str, str] = {}
        self._claimed: Set[str] = set()
        read, write = os.pipe()
        self._began = _STAT(read).st_ctime_ns  # by the clock that stamps files, which lags behind the one of `time`
        os.close(read)
        os.close(write)

    def trust(self, paths: Iterable[str]) -> None:
        """Take files, links resolved, for none of the patch's."""
        self._suspects -= frozenset(paths)
        self._moved = frozenset(_identities(self._suspects))

    def real(self, path: str) -> str:
        """The file that a path leads to, links resolved."""
        if path not in self._known:
            self._known[path] = _REAL(_under(self._root, path))
        return self._known[path]

    def is_suspect(self, path: str) -> bool:
        """Whether the patch touches the file."""
        return self.real(path) in self._suspects

    def is_old(self, path: str) -> bool:
        """Whether a file is one of the repository that the patch does not touch."""
        return self.real(path).startswith(self._root + "/") and not self.is_suspect(path)

    def was_there(self, path: str) -> bool:
        """Whether a file is one, and has not been changed since the start.

        Where nothing can be written its date says nothing: it is of the last link to it, and an environment that is
        built meanwhile may have the same package.
        """
        real = self.real(path)
        try:
            return _STAT(real).st_ctime_ns < self._began or bool(_STATVFS(real).f_flag & _READ_ONLY)
        except OSError:
            return False

    def is_new(self, path: str) -> bool:
        """Whether a file of the repository, not one of the patch, was written or put in its place since the start.

        The kernel dates the last change of a file, and nobody else can.
        """
        if not path.startswith(self._root + "/") or self.is_suspect(path):
            return False
        try:
            found = _LSTAT(path)
        except OSError:
            return True
        return found.st_ctime_ns >= self._began or (found.st_dev, found.st_ino) in self._moved

    def new_modules(self) -> Iterator[str]:
        """The files of imported modules that git knows of and that are new; what git does not know, a test made."""
        paths = [str(getattr(module, "__file__", None)) for module in list(sys.modules.values())]
        new = [path for path in paths if self.is_new(path)]
        known = _read(self._root + "/.git/index") if new and _EXISTS(self._root + "/.git/index") else b""
        yield from (path for path in new if os.fsencode(path[len(self._root) + 1 :]) + b"\0" in known)

    def claim(self, path: Any) -> None:
        """Code of the patch had a hand in making code that says it is of this file ("/": of any)."""
        if isinstance(path, str) and not path.startswith("<"):
            self._claimed.add(self.real(path))

    def is_claimed(self, path: str) -> bool:
        """Whether code that says it is of this file may be none of it."""
        return "/" in self._claimed or self.real(path) in self._claimed

    def is_decorated(self, code: CodeType) -> bool:
        """Whether a function has decorators in its source."""
        lines = _read(self.real(code.co_filename)).splitlines()
        return lines[code.co_firstlineno - 1].lstrip().startswith(b"@")

    def defines(self, path: str, name: str) -> bool:
        """Whether a file defines a function or class of this name, at whatever depth."""
        return any(code.co_name == name for code in _plain(self.real(path)))

    def holds(self, code: CodeType) -> bool:
        """Whether the file that a code object names holds that very code, and held it before the tests ran."""
        try:
            path = self.real(code.co_filename)
            return self.was_there(path) and any(code == found for way in (_plain, _rewritten) for found in way(path))
        except Exception:  # no such file, no Python, or of another pytest
            return False


def _identities(paths: Iterable[str]) -> Iterator[Tuple[int, int]]:
    for path in paths:
        if _EXISTS(path):
            found = _LSTAT(path)
            yield found.st_dev, found.st_ino


def _under(root: str, path: str) -> str:
    return path if path.startswith("/") else root + "/" + path


def _read(path: str) -> bytes:
    with _OPEN(path, "rb") as file:
        text: bytes = file.read()
    return text


@functools.lru_cache(maxsize=256)
def _plain(path: str) -> Tuple[CodeType, ...]:
    return tuple(_codes(_COMPILE(_read(path), path, "exec", dont_inherit=True)))


@functools.lru_cache(maxsize=256)
def _rewritten(path: str) -> Tuple[CodeType, ...]:
    """As pytest compiles test modules and conftest.py."""
    from _pytest.assertion.rewrite import rewrite_asserts

    source = _read(path)
    tree = ast.parse(source)
    rewrite: Callable[..., Any] = rewrite_asserts  # before pytest 5.2 it takes no source
    rewrite(*((tree, source, path) if "source" in rewrite.__code__.co_varnames else (tree, path)))
    return tuple(_codes(_COMPILE(tree, path, "exec", dont_inherit=True)))


def _codes(code: CodeType) -> Iterator[CodeType]:
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _codes(constant)
