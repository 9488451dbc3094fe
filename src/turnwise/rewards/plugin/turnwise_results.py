"""Runs pytest and writes what happened, test by test, as JSON lines. Runs inside the sandbox, on the task's own Python.

Usage: python -B -s turnwise_results.py RESULTS_PATH explain|plain [TEST_FILE ...]     (no file: the whole suite)

Pytest and everything here are imported before the repository comes onto `sys.path` (TURNWISE_PYTHONPATH), so that a
file in the repository named like a standard module, a `sitecustomize.py` or a made-up pytest plugin cannot take their
place; the repository's own pytest configuration is not read. Needs Python 3.8 and pytest 7 or later, nothing else.

Each line is {"id", "outcome", "failure"?}; the last one {"exit_code"} tells a finished run from one cut short.
"""

from __future__ import annotations

import ast
import functools
import gc
import json
import linecache
import os
import sys
import textwrap
import unittest
from collections.abc import Iterator
from importlib.metadata import entry_points
from pathlib import Path
from types import FunctionType, ModuleType
from typing import IO, Any

gc.disable()  # the imports below make no garbage worth a collection: 20 ms of the start-up
import _pytest  # noqa: E402
import pluggy  # noqa: E402
import pytest  # noqa: E402
from _pytest._code import Traceback  # noqa: E402

# Switched off: writing into the repository (cacheprovider), and what costs start-up or a full collection at the end
# (unraisableexception alone: 90 ms) and decides no outcome.
OFF = ("cacheprovider", "unraisableexception", "threadexception", "faulthandler", "pastebin", "junitxml")
OPTIONS = (
    "-q",
    "--tb=short",
    "--no-header",
    "--continue-on-collection-errors",
    "-c",
    os.devnull,
    "--rootdir=.",
    "-o",
    "addopts=",
)
INTERNAL = (*(str(Path(str(module.__file__)).parent) for module in (pytest, _pytest, pluggy, unittest)), "<frozen ")
MESSAGE_CHARS, REPR_CHARS, SOURCE_CHARS, FRAMES = 4000, 200, 2000, 20
RANK = {"passed": 0, "skipped": 1, "failed": 2, "error": 3}


class Results:
    """The pytest plugin: one line for every finished test, whatever ends the run afterwards."""

    def __init__(self, out: IO[str], explain: bool) -> None:
        self._out = out
        self._explain = explain
        self._running: dict[str, dict[str, Any]] = {}

    @pytest.hookimpl(hookwrapper=True)
    def pytest_runtest_makereport(self, item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
        outcome: Any = yield
        report = outcome.get_result()
        found = self._running.setdefault(item.nodeid, {"id": item.nodeid, "outcome": "passed"})
        word = _outcome(report)
        if RANK[word] > RANK[found["outcome"]]:
            found["outcome"] = word
        if report.failed and call.excinfo is not None and "failure" not in found:
            found["failure"] = _failure(call.excinfo, call.when, str(item.path), self._explain)

    def pytest_runtest_logfinish(self, nodeid: str) -> None:
        self._write(self._running.pop(nodeid))

    @pytest.hookimpl(hookwrapper=True)
    def pytest_make_collect_report(self, collector: pytest.Collector) -> Iterator[None]:
        outcome: Any = yield
        report = outcome.get_result()
        if report.failed:
            failure = {
                "phase": "collect",
                "exception": "CollectError",
                "message": str(report.longrepr)[-MESSAGE_CHARS:],
            }
            if report.call.excinfo is not None:
                failure["exception"] = _type_name(report.call.excinfo.type)
            self._write({"id": collector.nodeid, "outcome": "error", "failure": failure})

    def finished(self, exit_code: int) -> None:
        self._write({"exit_code": int(exit_code)})

    def _write(self, line: dict[str, Any]) -> None:
        self._out.write(json.dumps(line) + "\n")
        self._out.flush()


def _outcome(report: Any) -> str:
    """An expected failure passes, as in SWE-bench's grading; a failure outside the test's own call is an error."""
    if report.failed:
        return "failed" if report.when == "call" else "error"
    if report.skipped:
        return "passed" if hasattr(report, "wasxfail") else "skipped"
    return "passed"


def _type_name(kind: type[BaseException]) -> str:
    return (
        kind.__name__
        if kind.__module__ == "builtins" or kind.__module__.startswith("_pytest.")
        else kind.__module__ + "." + kind.__name__
    )


def _failure(excinfo: Any, phase: str, test_file: str, explain: bool) -> dict[str, Any]:
    failure: dict[str, Any] = {"phase": phase, "exception": _type_name(excinfo.type), "message": _text(excinfo.value)}
    if not explain:
        return failure
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
def _statements(path: str) -> tuple[ast.stmt, ...]:
    tree = ast.parse("".join(linecache.getlines(path)))
    return tuple(node for node in ast.walk(tree) if isinstance(node, ast.stmt))


def _frame(entry: Any) -> dict[str, Any]:
    path, root = str(entry.path), str(Path.cwd()) + os.sep
    file = path[len(root) :] if path.startswith(root) else path
    return {
        "file": file,
        "line": entry.lineno + 1,
        "function": str(entry.name),
        "source": _statement(path, entry.lineno + 1),
    }


def _variables(statement: str, values: dict[str, Any]) -> dict[str, str]:
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


def _environment_plugins() -> list[str]:
    """Names of the pytest plugins of the environment; looked up before the repository can add any."""
    found: Any = entry_points()
    chosen = found.select(group="pytest11") if hasattr(found, "select") else found.get("pytest11", [])
    return sorted({entry.name for entry in chosen})


def main(results_path: str, mode: str, files: list[str]) -> int:
    """Run the files that exist (none given: the whole suite) and return pytest's exit code."""
    plugins = [option for name in _environment_plugins() for option in ("-p", name)]
    off = [option for name in OFF for option in ("-p", "no:" + name)]
    paths = os.environ.pop("TURNWISE_PYTHONPATH", "")
    os.environ.pop("PYTEST_ADDOPTS", None)
    os.environ.pop("PYTEST_PLUGINS", None)
    os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
    os.environ["PYTHONPATH"] = paths  # for the Python processes that tests start
    sys.path[0:1] = [str(Path.cwd()), *(path for path in paths.split(os.pathsep) if path)]
    present = [file for file in files if Path(file).exists()]
    sys.argv = ["pytest"]
    gc.freeze()
    gc.enable()
    with Path(results_path).open("a") as out:
        results = Results(out, explain=mode == "explain")
        if files and not present:
            exit_code = int(pytest.ExitCode.NO_TESTS_COLLECTED)
        else:
            assertion = "--assert=" + ("rewrite" if mode == "explain" else "plain")
            exit_code = int(pytest.main([*OPTIONS, assertion, *off, *plugins, *present], plugins=[results]))
        results.finished(exit_code)
    return exit_code


if __name__ == "__main__":
    code = main(sys.argv[1], sys.argv[2], sys.argv[3:])
    sys.stdout.flush()
    os._exit(code)  # a thread that a test left behind cannot hold the run up
