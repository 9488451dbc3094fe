"""A package's own suite before any bug: which tests pass every time, and which functions each test file calls."""

import ast
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Protocol

from turnwise.types import SandboxSpec, SuiteResult

_TEST_FILE = re.compile(r"^(test_.*|.*_tests?|tests?|test.*_suite)\.py$")
TEST_FOLDERS = ("test", "tests", "testing", "unittests", "e2e")  # what lies in one belongs to the tests
_HAS_TESTS = re.compile(r"^\s*(async\s+)?def test|^\s*class \w*\(.*TestCase", re.MULTILINE)
CALLS_FILE = "turnwise_calls_test.py"
# Collected after a test file, so that it watches that file's tests run; then it tells by failing, because a failure's
# message is the way out of a sandbox that every suite runner has. One bit a function, lowest first.
_CALLS_SOURCE = """\
import os, sys, threading
import pytest

PLACES = {places!r}
_codes = {{}}


def _record(frame, event, arg):
    if event == "call":
        _codes[id(frame.f_code)] = frame.f_code


def test_called():
    sys.setprofile(None)
    called = {{(os.path.relpath(c.co_filename), c.co_firstlineno) for c in list(_codes.values())}}
    pytest.fail("calls:%x" % sum(1 << i for i, place in enumerate(PLACES) if place in called))


threading.setprofile(_record)
sys.setprofile(_record)
"""


class SuiteRunner(Protocol):
    """Runs the test files of a package (None: all that are found) in a fresh sandbox made from `spec`."""

    async def __call__(self, spec: SandboxSpec, test_files: Sequence[str] | None, timeout_s: float) -> SuiteResult:
        """Outcomes by test id. Raises SandboxError; a suite that crashes or hangs is a result."""
        ...


@dataclass(frozen=True)
class Place:
    """A function: its file, and the line that its code starts on (that of its first decorator)."""

    file: str
    lineno: int


@dataclass(frozen=True)
class FileBaseline:
    """One test file at its best: the ids that passed in every run, the functions it called, how long it takes."""

    passed: frozenset[str]
    called: frozenset[Place]
    duration_s: float


def is_test_path(path: str) -> bool:
    """Whether a file belongs to the tests by its path alone: named so, in a test folder, or a conftest.py.

    >>> [is_test_path(path) for path in ("tests/data/a.json", "pkg/test_io.py", "conftest.py", "pkg/testing.py")]
    [True, True, True, False]
    """
    *folders, name = PurePosixPath(path).parts
    return name == "conftest.py" or not set(TEST_FOLDERS).isdisjoint(folders) or _TEST_FILE.match(name) is not None


def find_test_files(root: Path) -> list[str]:
    """Files that hold tests: named so (`test_x.py`, `x_test.py`, `tests.py`) or in a test folder."""
    found = []
    for path in sorted(root.rglob("*.py")):
        relative = path.relative_to(root)
        if path.name in ("conftest.py", "__init__.py", "setup.py") or not is_test_path(str(relative)):
            continue
        if not str(relative).isprintable():  # no row can name it
            continue
        if _HAS_TESTS.search(path.read_text(encoding="utf-8", errors="replace")):
            found.append(str(relative))
    return found


def function_places(file: str, source: str) -> dict[int, Place]:
    """The functions of a file: the line of their `def` → their place."""
    places = {}
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            places[node.lineno] = Place(file, min([node.lineno, *(d.lineno for d in node.decorator_list)]))
    return places


def write_calls_file(root: Path, places: Sequence[Place]) -> None:
    """Put the watching test into a root; `called_places` reads what it says."""
    pairs = [(place.file, place.lineno) for place in places]
    (root / CALLS_FILE).write_text(_CALLS_SOURCE.format(places=pairs), encoding="utf-8")


def called_places(result: SuiteResult, places: Sequence[Place]) -> frozenset[Place]:
    """The functions that were called in a run that ended with the watching test."""
    failure = result.failures.get(f"{CALLS_FILE}::test_called")
    match = re.search(r"calls:([0-9a-f]+)", failure.message) if failure else None
    bits = int(match[1], 16) if match else 0
    return frozenset(place for index, place in enumerate(places) if bits >> index & 1)


async def run_baseline(
    run_suite: SuiteRunner, spec: SandboxSpec, file: str, places: Sequence[Place], repeats: int, timeout_s: float
) -> FileBaseline | None:
    """Run a test file alone, once watched and then plain, on a root that holds the watching test.

    Only ids that pass in each of the `repeats` runs count. None for a file without any, or one that runs longer than
    `timeout_s`.
    """
    watched = await run_suite(spec, [file, CALLS_FILE], 3 * timeout_s)
    passed = {test_id for test_id, outcome in watched.outcomes.items() if outcome == "passed"}
    duration_s = 0.0
    for _ in range(max(1, repeats - 1)):
        if not passed or watched.timed_out:
            return None
        plain = await run_suite(spec, [file], timeout_s)
        passed = set() if plain.timed_out else {i for i in passed if plain.outcomes.get(i) == "passed"}
        duration_s = max(duration_s, plain.duration_s)
    return FileBaseline(frozenset(passed), called_places(watched, places), duration_s) if passed else None
