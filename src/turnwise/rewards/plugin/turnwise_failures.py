"""Why a test failed: the error, and what its statement saw. Runs in the tests' own process.

Needs Python 3.8 and pytest 7, nothing else.
"""

import ast
import functools
import linecache
import os
import textwrap
import unittest
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any, Callable, Dict, Generator, Tuple, Type

import _pytest
import pluggy
import pytest
from _pytest._code import Traceback

Row = Dict[str, Any]

INTERNAL = (
    *(str(Path(str(module.__file__)).parent) for module in (pytest, _pytest, pluggy, unittest)),
    str(Path(__file__).parent),
    "<frozen ",
)
MESSAGE_CHARS, REPR_CHARS, SOURCE_CHARS, FRAMES = 4000, 200, 2000, 20


class Explainer:
    """The pytest plugin: a row for the first failure of each test, and of each file that cannot be collected."""

    def __init__(self, report: Callable[[str, Row], None]) -> None:
        self._report = report

    @pytest.hookimpl(hookwrapper=True, tryfirst=True)
    def pytest_runtest_makereport(self, item: Any, call: Any) -> Generator[None, Any, None]:
        outcome = yield
        if outcome.get_result().failed and call.excinfo is not None:
            self._report(item.nodeid, failure_of(call.excinfo, call.when, str(item.path)))

    @pytest.hookimpl(hookwrapper=True)
    def pytest_make_collect_report(self, collector: Any) -> Generator[None, Any, None]:
        outcome = yield
        report = outcome.get_result()
        if report.failed:
            found = getattr(getattr(report, "call", None), "excinfo", None)
            kind = "CollectError" if found is None else type_name(found.type)
            failure = {"phase": "collect", "exception": kind, "message": str(report.longrepr)[-MESSAGE_CHARS:]}
            self._report(collector.nodeid, failure)


def type_name(kind: Type[BaseException]) -> str:
    """What an exception's class is called: by its module too, where that is no built-in."""
    return (
        kind.__name__
        if kind.__module__ == "builtins" or kind.__module__.startswith("_pytest.")
        else kind.__module__ + "." + kind.__name__
    )


def failure_of(excinfo: Any, phase: str, test_file: str) -> Row:
    """A `turnwise.types.TestFailure` as JSON: what pytest caught in a phase of a test of this file."""
    failure: Row = {"phase": phase, "exception": type_name(excinfo.type), "message": _text(excinfo.value)}
    entries = [entry for entry in Traceback(excinfo.tb) if not str(entry.path).startswith(INTERNAL)]
    own = [entry for entry in entries if str(entry.path) == test_file]
    if own:
        failure["statement"] = _statement(test_file, own[-1].lineno + 1)
        failure["variables"] = _variables(failure["statement"], own[-1].frame.f_locals)
        entries = entries[entries.index(own[0]) :]
    failure["frames"] = [_frame(entry) for entry in entries[-FRAMES:]]
    return failure


def _text(value: BaseException) -> str:
    try:
        return str(value)[:MESSAGE_CHARS]
    except Exception:  # the code under test may well have broken its own exception's __str__
        return ""


def _statement(path: str, line: int) -> str:
    """The innermost whole statement at a line, dedented; of a compound one (`with raises(X):`) the block too."""
    lines = linecache.getlines(path)
    try:
        around = [node for node in _statements(path) if node.lineno <= line <= (node.end_lineno or line)]
    except SyntaxError:  # generated code, or not Python
        around = []
    if not around:
        return ""
    best = max(around, key=lambda node: (node.lineno, -(node.end_lineno or 0)))
    return textwrap.dedent("".join(lines[best.lineno - 1 : best.end_lineno])).strip()[:SOURCE_CHARS]


@functools.lru_cache(maxsize=64)
def _statements(path: str) -> Tuple[ast.stmt, ...]:
    tree = ast.parse("".join(linecache.getlines(path)))
    return tuple(node for node in ast.walk(tree) if isinstance(node, ast.stmt))


def _frame(entry: Any) -> Row:
    path, root = str(entry.path), str(Path.cwd()) + os.sep
    file = path[len(root) :] if path.startswith(root) else path
    return {
        "file": file,
        "line": entry.lineno + 1,
        "function": str(entry.name),
        "source": _statement(path, entry.lineno + 1),
    }


def _variables(statement: str, values: Row) -> Dict[str, str]:
    """The reprs of the local values that the statement names; functions, classes and modules say nothing by repr."""
    try:
        names = {node.id for node in ast.walk(ast.parse(statement)) if isinstance(node, ast.Name)}
    except SyntaxError:  # a header without its body, such as `with raises(X):`
        names = set()
    shown = {}
    for name in sorted(names & set(values)):
        if isinstance(values[name], (FunctionType, ModuleType, type)):
            continue
        try:
            shown[name] = repr(values[name])[:REPR_CHARS]
        except Exception:  # an object of the code under test may not be able to show itself
            continue
    return shown
