"""Runs pytest as its own command does, and reports every outcome to the supervisor. Runs in the sandbox.

Usage, in the place of `pytest` or `python -m pytest` (MODE "script" or "module"): python turnwise_pytest.py MODE
[ARGUMENT ...]. MODE "ours" is our own way to run test files: the repository, whose import paths are the next argument,
comes onto `sys.path` after pytest, on which it cannot have an influence then; files that are not there are left out.
With "+explain" behind a mode it also reports why tests fail.

Tests can see nothing of it: no module is loaded before them that pytest does not load itself, and pytest gets neither
an option nor another working directory. So rows are written as Python literals, for which no module is needed. Needs
Python 3.6 and pytest 5 or later, nothing else; to explain, Python 3.8 and pytest 7.

A row is (nodeid, phase, outcome, expected failure, sub-test), for what pytest reports of a test or of a file that it
cannot collect; phases that pass, but for the call, are left out. ("failure", nodeid, {...}) tells of a failed test and
("end", exit code) of a run that came to its own end.
"""

import os
import sys
from typing import Any, Callable, Tuple  # which pytest loads, too

REPORT_FD, TOKEN_FD = 198, 199
NO_TESTS = 5  # pytest's exit code
Send = Callable[[Tuple[Any, ...]], None]


def make_sender() -> Send:
    """`send(row)`, which does nothing in processes that tests start."""
    token, owner, write, getpid = os.read(TOKEN_FD, 64), os.getpid(), os.write, os.getpid
    os.close(TOKEN_FD)
    os.set_inheritable(REPORT_FD, False)

    def send(row: Tuple[Any, ...]) -> None:
        line = b"%b %b\n" % (token, repr(row).encode("ascii", "backslashreplace"))
        while line and getpid() == owner:
            line = line[write(REPORT_FD, line) :]

    return send


class Recorder:
    """The pytest plugin. It hears what the terminal's report hears: with pytest-xdist or pytest-forked, too."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self._to_root = self._from_root = os.curdir

    def pytest_configure(self, config: Any) -> None:
        root = str(getattr(config, "rootpath", None) or config.rootdir)  # the second before pytest 6.1
        self._to_root, self._from_root = os.path.relpath(root), os.path.relpath(os.curdir, root)

    def named(self, nodeid: str) -> str:
        """A test's id as logs have it: relative to where pytest runs, and not to a root that its settings may move."""
        if self._to_root == os.curdir:
            return nodeid
        if nodeid.startswith(self._from_root + "/"):
            return nodeid[len(self._from_root) + 1 :]
        return self._to_root + "/" + nodeid

    def pytest_runtest_logreport(self, report: Any) -> None:
        if report.when == "call" or report.outcome != "passed":
            kind = type(report).__name__.lower()
            row = (report.when, report.outcome, hasattr(report, "wasxfail"), kind == "subtestreport")
            self._send((self.named(report.nodeid), *row))

    def pytest_collectreport(self, report: Any) -> None:
        if report.failed:
            self._send((self.named(report.nodeid), "collect", "failed", False, False))


def main(mode: str, *arguments: str) -> int:
    """pytest's exit code."""
    send = make_sender()
    recorder = Recorder(send)
    plugins: Any = [recorder]
    mode, _, explain = mode.partition("+")
    start = _our_way if mode == "ours" else _own_way
    pytest, arguments = start(mode, arguments)
    if explain:
        sys.path.append(os.path.dirname(__file__))
        from turnwise_failures import Explainer

        plugins.append(Explainer(lambda nodeid, failure: send(("failure", recorder.named(nodeid), failure))))
    code = NO_TESTS if pytest is None else int(pytest.main(list(arguments), plugins=plugins))
    sys.stdout.flush()
    send(("end", code))
    return code


def _own_way(mode: str, arguments: Tuple[str, ...]) -> Tuple[Any, Tuple[str, ...]]:
    """pytest and its arguments, with `sys.argv` and `sys.path` as its own command has them."""
    folder = os.path.dirname(sys.executable)
    sys.path[0] = os.getcwd() if mode == "module" else folder
    import pytest

    own = os.path.join(os.path.dirname(pytest.__file__), "__main__.py")
    sys.argv = [own if mode == "module" else os.path.join(folder, "pytest"), *arguments]
    return pytest, arguments


def _our_way(mode: str, arguments: Tuple[str, ...]) -> Tuple[Any, Tuple[str, ...]]:
    """pytest (None where no file is there of those asked for) and its arguments."""
    paths, *words = arguments
    there = tuple(word for word in words if not word.endswith(".py") or os.path.exists(word))
    sys.path.pop(0)
    import pytest

    sys.argv = ["pytest"]
    sys.path[:0] = [os.getcwd(), *(os.path.abspath(path) for path in paths.split(os.pathsep) if path)]
    os.environ["PYTHONPATH"] = paths  # for the processes that tests start
    asked, found = ([each for each in words_ if each.endswith(".py")] for words_ in (words, there))
    return (None if asked and not found else pytest), there


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
