"""Runs a row's own test program, such as Django's tests/runtests.py, and reports what unittest says of each test.

The supervisor's child imports it and calls `run(line, SUSPECTS, COMMAND, *WORDS)`; WORDS are [-m] NAME [ARGUMENT ...].

The program runs as `python [-m] NAME ARGUMENT ...` would run it, in a child process of the supervisor. A NAME that is a
file but no Python makes a shell run COMMAND instead, which reports nothing. Needs Python 3.6 or later, nothing else.

Each row is {"id", "outcome"}: the test as unittest prints it, and "passed", "failed", "error" or "skipped"; the row
{"exit_code"} tells a finished run from one that something ended.
"""

import os
import runpy
import sys
import unittest
from pathlib import Path
from typing import Any, Callable, Dict, List

from turnwise_guard import Guard
from turnwise_supervisor import Line, Row, run_shell

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

    def __init__(self, send: Callable[[Row], None], guard: Guard) -> None:
        self._send = send
        self._guard = guard
        self._running: Dict[int, Row] = {}

    def install(self, result: Any = unittest.TestResult) -> None:
        """Wrap the methods."""
        for name, word in WORDS.items():
            setattr(result, name, self._listening(getattr(result, name), self._listener(word)))
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
        self._running[id(test)] = {"id": str(test), "outcome": "passed", "names": _names(test)}

    def _listener(self, word: str) -> Callable[..., None]:
        def listen(test: Any, *arguments: Any) -> None:
            row = self._running.get(id(test))
            if word == "skipped" and self._guard.is_raised_by_patch(sys.exc_info()[2]):
                self._guard.alarm(f"code of the patch skips {test}")
            if row is None:  # a class's or a module's own set-up
                self._send({"id": str(test), "outcome": word, "names": _names(test)})
            elif RANK[word] > RANK[row["outcome"]]:
                row["outcome"] = word

        return listen

    def _sub_test(self, test: Any, sub_test: Any, error: Any) -> None:
        if error is not None and id(test) in self._running:
            self._running[id(test)]["outcome"] = "failed"

    def _stop(self, test: Any) -> None:
        row = self._running.pop(id(test), None)
        if row is not None:
            self._guard.after_test()
            self._send(row)


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


def _is_python(name: str) -> bool:
    try:
        with Path(name).open("rb") as file:
            return name.endswith(".py") or b"python" in file.readline()
    except OSError:
        return False


def run(line: Line, suspects: str, command: str, *words: str) -> int:
    """Run the program in this process; its exit code."""
    if words[0] != "-m" and not _is_python(words[0]):
        return int(run_shell(line, command))
    paths = os.environ.pop("TURNWISE_PYTHONPATH", "")
    if paths:
        os.environ["PYTHONPATH"] = paths
    here = str(Path.cwd()) if words[0] == "-m" else ""
    sys.path[0:1] = [path for path in (here, *paths.split(os.pathsep)) if path]
    guard = Guard([path for path in suspects.split(":") if path], lambda text: line.send({"alarm": text}))
    Recorder(line.send, guard).install()
    guard.start(None)
    line.wait()
    code = _run(list(words))
    guard.finish(None)
    line.send({"exit_code": code})
    return code
