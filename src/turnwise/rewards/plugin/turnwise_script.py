"""Runs a row's own test program, such as Django's tests/runtests.py, and reports what unittest says of each test.

The supervisor's child imports it and calls `run(line, SUSPECTS, COMMAND, *WORDS)`; WORDS are [-m] NAME [ARGUMENT ...].
SUSPECTS is the path of a file that tells what the patch under judgement touches ("": nothing).

The program runs as `python [-m] NAME ARGUMENT ...` would run it, in a child process of the supervisor. A NAME that is a
file but no Python makes a shell run COMMAND instead, which reports nothing. Needs Python 3.6 or later, nothing else.

Each row is {"id", "outcome", "names", "in_sub_test"?}: the test as unittest prints it, "passed", "failed", "error" or
"skipped", and whether it was a sub-test that failed; the row {"exit_code"} tells a finished run from one that something
ended.
"""

import os
import runpy
import sys
import unittest
from pathlib import Path
from types import FunctionType
from typing import Any, Callable, Dict, List

from turnwise_files import read_suspects
from turnwise_guard import Guard
from turnwise_supervisor import Line, Row, run_shell
from turnwise_sympy import Listener
from turnwise_witness import Tell, make_ledger, watch_assertions, watch_loading, watch_unittest

WORDS = {
    "addSuccess": "passed",
    "addExpectedFailure": "passed",
    "addSkip": "skipped",
    "addFailure": "failed",
    "addUnexpectedSuccess": "failed",
    "addError": "error",
}
RANK = {"passed": 0, "skipped": 1, "failed": 2, "error": 3}


class Recorder:
    """Listens to every `unittest.TestResult`: the class's own methods are wrapped before anything else is imported."""

    def __init__(self, tell: Tell, guard: Guard) -> None:
        self._tell = tell
        self._guard = guard
        self._running: Dict[int, Row] = {}

    def install(self, result: Any = unittest.TestResult) -> None:
        """Wrap the methods."""
        for name, word in WORDS.items():
            setattr(result, name, self._listening(getattr(result, name), self._listener(name, word)))
        result.startTest = self._listening(result.startTest, self._start)
        result.stopTest = self._listening(result.stopTest, self._stop)
        result.addSubTest = self._listening(result.addSubTest, self._sub_test)

    @staticmethod
    def _listening(method: Any, listen: Callable[..., None]) -> Any:
        def listening(result: Any, test: Any, *arguments: Any) -> Any:
            listen(test, *arguments)
            return method(result, test, *arguments)

        return listening

    def _start(self, test: Any) -> None:
        if not self._running:  # and not a test that another test runs
            self._tell("starts", id(test))
            self._guard.starts(test)
        method = getattr(type(test), getattr(test, "_testMethodName", ""), None)
        if isinstance(method, FunctionType):
            self._guard.require_old(method.__code__.co_filename)
        self._running[id(test)] = {"id": str(test), "outcome": "passed", "names": _names(test)}

    def _listener(self, method: str, word: str) -> Callable[..., None]:
        def listen(test: Any, *arguments: Any) -> None:
            row = self._running.get(id(test))
            raised = sys.exc_info()[2]
            hidden = row is not None and not self._guard.may_skip(test)
            by_patch = raised is not None and self._guard.is_raised_by_patch(raised)
            # A program may well skip tests in ways of its own; they just do not count as skipped by the tests.
            said = "failed" if word == "skipped" and (hidden or by_patch) else word
            if row is None:  # a class's or a module's own set-up
                self._tell("row", {"id": str(test), "outcome": said, "names": _names(test)})
            elif RANK[said] > RANK[row["outcome"]]:
                row["outcome"] = said
            if row is not None and method == "addExpectedFailure":
                row["expected"] = True

        return listen

    def _sub_test(self, test: Any, sub_test: Any, error: Any) -> None:
        row = self._running.get(id(test))
        if error is not None and row is not None and RANK[row["outcome"]] < RANK["failed"]:
            row.update({"outcome": "failed", "in_sub_test": True})

    def _stop(self, test: Any) -> None:
        row = self._running.pop(id(test), None)
        if row is not None:
            self._guard.ends(test)
            self._guard.after_test()
            self._tell("row", row, None if self._running else id(test))


def _names(test: Any) -> List[str]:
    """What a log may call the test: its own name, or the first line of its docstring."""
    short = getattr(test, "shortDescription", lambda: None)()
    return [str(test), *([short] if short else [])]


def _run(words: List[str]) -> int:
    """Run the program in this process; its exit code."""
    try:
        if words[0] == "-m":
            sys.argv = words[1:]
            runpy.run_module(words[1], run_name="__main__", alter_sys=True)
        else:
            sys.argv = words
            sys.path.insert(0, str(Path(words[0]).absolute().parent))
            runpy.run_path(words[0], run_name="__main__")
    except SystemExit as end:
        if end.code is None or isinstance(end.code, int):
            return end.code or 0
        print(end.code, file=sys.stderr)
        return 1
    return 0


def _is_python(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return path.suffix == ".py" or b"python" in file.readline()
    except OSError:
        return False


def run(line: Line, suspects: str, command: str, *words: str) -> int:
    """Run the program in this process; its exit code."""
    folder = Path.cwd() / os.environ.pop("TURNWISE_FOLDER", "")
    if words[0] != "-m" and not _is_python(folder / words[0]):
        return int(run_shell(line, command))
    paths = os.environ.pop("TURNWISE_PYTHONPATH", "")
    if paths:
        os.environ["PYTHONPATH"] = paths
    here = os.environ.pop("TURNWISE_HERE", str(folder))
    sys.path[0:1] = [os.path.normpath(folder / path) for path in (here, *paths.split(os.pathsep)) if path]
    tell, send, wait = make_ledger(line.send), [line.send], line.wait
    del line  # code under test can look into every frame below its own
    guard = Guard(read_suspects(suspects), lambda text: tell("row", {"alarm": text}))
    watch_unittest(tell, guard.skipped)
    watch_loading(guard.loaded)
    watch_assertions(guard.before_assertion)
    Recorder(tell, guard).install()
    listener = Listener(send.pop(), guard)
    listener.install()
    guard.start(None)
    os.chdir(str(folder))
    wait()
    code = _run(list(words))
    listener.finish()
    guard.finish(None)
    tell("row", {"exit_code": code})
    return code
