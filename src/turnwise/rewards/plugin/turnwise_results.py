"""Runs pytest and reports what happened, test by test, to the supervisor. Runs inside the sandbox.

The supervisor's child imports it and calls `run(line, MODE, SUSPECTS, *ARGUMENTS)`; MODE is explain, plain, own or
own-explain. SUSPECTS is the path of a file that tells what the patch under judgement touches ("": nothing).

`explain` and `plain` run the test files given (none: the whole suite) in our own way: the repository's pytest
configuration is not read. `own` runs pytest as the task's row wants it: the arguments are pytest's. Those with
`explain` in their name also tell why tests failed.

Pytest and everything here are imported before the repository comes onto `sys.path` (TURNWISE_PYTHONPATH), and what
pytest imports as it starts before it comes first there, so that a file in the repository named like a standard module,
a `sitecustomize.py` or a made-up pytest plugin cannot take their place. Needs Python 3.6 and pytest 5 or later, nothing
else; `explain` needs Python 3.8 and pytest 7.

Each row of the record is {"id", "outcome", "failure"?}, or {"alarm"} where something steers the tests that must not;
the row {"exit_code"} tells a finished run from one cut short.
"""

import gc

gc.disable()  # the imports below make no garbage worth a collection: 20 ms of the start-up
import os  # noqa: E402
import sys  # noqa: E402
import unittest  # noqa: E402
from importlib import import_module  # noqa: E402
from pathlib import Path  # noqa: E402
from types import MappingProxyType  # noqa: E402
from typing import Any, Callable, Dict, Generator, Iterator, List  # noqa: E402

import pytest  # noqa: E402
from turnwise_canary import Canary, passing_canaries  # noqa: E402
from turnwise_failures import MESSAGE_CHARS, failure_of, type_name  # noqa: E402
from turnwise_files import read_suspects  # noqa: E402
from turnwise_guard import Guard, Sealed  # noqa: E402
from turnwise_supervisor import Line, Row  # noqa: E402
from turnwise_witness import Tell, make_ledger, watch_assertions, watch_unittest, witnessed  # noqa: E402

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
SKIPPED, XFAILED = pytest.skip.Exception, pytest.xfail.Exception
RANK = MappingProxyType({"passed": 0, "skipped": 1, "failed": 2, "error": 3})
COROUTINES = 0x80 | 0x100 | 0x200  # coroutines, by decorator too, and asynchronous generators: of a code's flags
FUNCTION_RUNTEST = pytest.Function.runtest
SUB_TESTS = ("SubTestReport", "SubtestReport")


class Results(metaclass=Sealed):  # type: ignore[metaclass] # Any, to mypy: a sibling found by the script's folder
    """The pytest plugin: one row for every finished test, whatever ends the run afterwards."""

    __slots__ = ("_explain", "_failed", "_guard", "_last", "_looked", "_open", "_root", "_running", "_tell")

    def __init__(self, tell: Tell, open_repository: Callable[[], None], guard: Guard, explain: bool) -> None:
        self._tell = tell
        self._open = open_repository
        self._guard = guard
        self._explain = explain
        self._running: Dict[str, Row] = {}
        self._failed: List[str] = []
        self._last: List[Any] = []
        self._looked: List[bool] = []
        self._root = [os.curdir, os.curdir]

    @pytest.hookimpl(tryfirst=True)
    def pytest_load_initial_conftests(self, early_config: Any) -> None:
        root = str(getattr(early_config, "rootpath", None) or early_config.rootdir)  # the second before pytest 6.1
        self._root[:] = [os.path.relpath(root), os.path.relpath(os.curdir, root)]
        self._guard.start(early_config.pluginmanager)
        self._open()

    @pytest.hookimpl(tryfirst=True)
    def pytest_cmdline_main(self, config: Any) -> None:
        """Tests run in this process, whatever pytest-xdist was told: elsewhere nothing would look after them."""
        if hasattr(config.option, "numprocesses"):
            config.option.numprocesses, config.option.tx, config.option.dist = 0, [], "no"

    def pytest_itemcollected(self, item: Any) -> None:
        self._guard.collected(item)

    @pytest.hookimpl(hookwrapper=True, tryfirst=True)
    def pytest_runtest_call(self, item: Any) -> Iterator[None]:
        if not isinstance(item, Canary):
            self._guard.before_and_after(item, before=True)
            if isinstance(_instance(item), unittest.TestCase):
                self._tell("stands_for", id(_instance(item)), item.nodeid)
        yield
        if not isinstance(item, Canary):
            self._guard.called(item.nodeid, "_pytest")
        if isinstance(_instance(item), unittest.TestCase):
            self._guard.ends(_instance(item))

    @pytest.hookimpl(hookwrapper=True, trylast=True)
    def pytest_pyfunc_call(self, pyfuncitem: Any) -> Iterator[None]:
        """Innermost of all hooks: whoever calls the test's function calls it through our witness."""
        function = pyfuncitem.obj
        if isinstance(pyfuncitem, Canary):
            yield
            return
        self._guard.before_call(pyfuncitem)
        if getattr(getattr(function, "__code__", None), "co_flags", 0) & COROUTINES:
            self._tell("called", pyfuncitem.nodeid)  # some plugin's own way
            yield
            return
        pyfuncitem.obj = witnessed(function, pyfuncitem.nodeid, self._tell)
        yield
        pyfuncitem.obj = function

    @pytest.hookimpl(hookwrapper=True, tryfirst=True)
    def pytest_runtest_makereport(self, item: Any, call: Any) -> Generator[None, Any, None]:
        raised = call.excinfo  # pytest puts one of its own in the place of a unittest.SkipTest
        outcome = yield
        if isinstance(item, Canary):
            return
        report = outcome.get_result()
        if call.when == "setup":  # a rerun starts anew
            self._running[item.nodeid] = {"id": item.nodeid, "outcome": "passed"}
            self._tell("starts", item.nodeid)
        found = self._running.setdefault(item.nodeid, {"id": item.nodeid, "outcome": "passed"})
        if call.when == "call":
            found["is_function"] = self._calls_its_function(item)
        word = self._word(report, item, raised)
        if RANK[word] > RANK[found["outcome"]]:
            found["outcome"] = word
        if report.failed and call.excinfo is not None and "failure" not in found:
            path = str(getattr(item, "path", None) or item.fspath)
            found["failure"] = failure_of(call.excinfo, call.when, path, self._explain)
        found.update({"expected": True} if word == "passed" and report.skipped else {})
        if call.when == "teardown":
            self._last[:] = [item]
            self._guard.before_and_after(item, before=False)
            self._guard.after_test()

    def pytest_runtest_logreport(self, report: Any) -> None:
        """Of a test that fails in a sub-test alone, a log may say that it passed: pytest-subtests, pytest 9."""
        if report.failed and type(report).__name__ in SUB_TESTS and report.nodeid in self._running:
            self._running[report.nodeid]["in_sub_test"] = True

    @pytest.hookimpl(hookwrapper=True, tryfirst=True)
    def pytest_runtest_protocol(self, item: Any) -> Iterator[None]:
        """A row for the test: of its last run, where a plugin runs it again."""
        yield
        if item.nodeid in self._running:
            row = self._running.pop(item.nodeid)
            row["id"] = self._shown(item.nodeid)
            self._failed.extend([item.nodeid] * (RANK[row["outcome"]] >= RANK["failed"]))
            self._tell("row", row, item.nodeid, row.pop("is_function", False))

    @pytest.hookimpl(hookwrapper=True)
    def pytest_make_collect_report(self, collector: Any) -> Generator[None, Any, None]:
        outcome = yield
        report = outcome.get_result()
        if report.failed:
            failure = {
                "phase": "collect",
                "exception": "CollectError",
                "message": str(report.longrepr)[-MESSAGE_CHARS:],
            }
            if getattr(report, "call", None) and report.call.excinfo is not None:
                failure["exception"] = type_name(report.call.excinfo.type)
            self._failed.append(collector.nodeid)
            self._tell("row", {"id": self._shown(collector.nodeid), "outcome": "error", "failure": failure})

    @pytest.hookimpl(hookwrapper=True)
    def pytest_runtestloop(self, session: Any) -> Iterator[None]:
        self._guard.before_tests(session.config.pluginmanager, session.items)
        yield
        self._looked.append(True)
        for name in passing_canaries(self._last[0]) if self._last else ():
            self._guard.alarm(f"a test made to fail ({name}) passed: something makes failing tests pass")
        self._guard.finish(session.config.pluginmanager)

    def finished(self, exit_code: int) -> None:
        """The last row. An exit code that denies the failures is one that something made."""
        if self._failed and exit_code == 0:
            self._guard.alarm(f"pytest's exit code is 0, although {self._failed[0]} failed")
        if self._last and not self._looked:
            self._guard.alarm("pytest ran tests, but never came to its own end")
        self._tell("row", {"exit_code": int(exit_code)})

    def _is_skipped_by_tests(self, item: Any, raised: Any) -> bool:
        """Whether what skips a test, where no code of its own does, was there before the tests ran."""
        if isinstance(_instance(item), unittest.TestCase):
            return any(map(self._guard.may_skip, (item, _instance(item))))
        # Before pytest 6 it is `skip` that raises, for `_pytest.skipping`.
        by_mark = raised is not None and "_pytest.skipping" in list(_modules(raised.tb))[-2:]
        return not by_mark or bool(self._guard.may_skip(item))

    def _calls_its_function(self, item: Any) -> bool:
        """Whether a test runs as pytest runs functions, and not in a way of its own as those of unittest do."""
        runtest = getattr(item.runtest, "__func__", item.runtest)
        own = "runtest" not in vars(item) and runtest is not FUNCTION_RUNTEST and self._guard.is_trusted(runtest)
        return isinstance(item, pytest.Function) and not own

    def _shown(self, nodeid: str) -> str:
        """A test's id as logs have it: told from where pytest runs, and not from a root that its settings may move.

        By texts alone: functions of the standard library may be the repository's by now.
        """
        to_root, from_root = self._root
        if to_root == ".":
            return nodeid
        if nodeid.startswith(from_root + "/"):
            return nodeid[len(from_root) + 1 :]
        return to_root + "/" + nodeid

    def _word(self, report: Any, item: Any, raised: Any) -> str:
        """An expected failure passes, as in SWE-bench's grading; a failure outside the test's own call is an error.

        Only the tests may skip or expect a failure: where the patch's own code does, the test has failed.
        """
        if report.failed:
            return "failed" if report.when == "call" else "error"
        if not report.skipped:
            return "passed"
        said = _is_on_purpose(raised) and self._guard.who_raised(raised.tb) is not None
        expected = hasattr(report, "wasxfail")
        if said:
            ours = self._guard.is_raised_by_patch(raised.tb)
        elif expected:
            ours = not self._guard.expects_failure(item)
        else:  # a mark, or a word of unittest's
            ours = not self._is_skipped_by_tests(item, raised)
        if ours:
            return "failed"
        return "passed" if expected else "skipped"


def _instance(item: Any) -> Any:
    """The object that a test is a method of; the second name before pytest 8.2."""
    return getattr(item, "instance", None) or getattr(item, "_testcase", None)


def _is_on_purpose(raised: Any) -> bool:
    return raised is not None and isinstance(raised.value, (SKIPPED, XFAILED, unittest.SkipTest))


def _modules(traceback: Any) -> Iterator[str]:
    while traceback is not None:
        yield str(traceback.tb_frame.f_globals.get("__name__"))
        traceback = traceback.tb_next


def _environment_plugins() -> List[str]:
    """Names of the pytest plugins of the environment; looked up before the repository can add any."""
    # Before Python 3.8 pytest brings it.
    module = "importlib.metadata" if sys.version_info >= (3, 8) else "importlib_metadata"
    found: Any = import_module(module).entry_points()
    chosen = found.select(group="pytest11") if hasattr(found, "select") else found.get("pytest11", [])
    return sorted({entry.name for entry in chosen})


def _our_way(mode: str, files: List[str]) -> Callable[[Results], int]:
    """The files that exist (none given: the whole suite), with nothing of the repository's configuration."""
    plugins = [option for name in _environment_plugins() for option in ("-p", name)]
    off = [option for name in OFF for option in ("-p", "no:" + name)]
    os.environ.pop("PYTEST_ADDOPTS", None)
    os.environ.pop("PYTEST_PLUGINS", None)
    os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
    sys.argv = ["pytest"]
    present = [file for file in files if Path(file).exists()]
    assertion = "--assert=" + ("rewrite" if mode == "explain" else "plain")

    def run(results: Results) -> int:
        if files and not present:
            return int(pytest.ExitCode.NO_TESTS_COLLECTED)
        return int(pytest.main([*OPTIONS, assertion, *off, *plugins, *present], plugins=[results]))

    return run


def _own_way(arguments: List[str]) -> Callable[[Results], int]:
    """As the row says; the repository's own configuration and plugins count."""
    sys.argv = ["pytest", *arguments]
    return lambda results: int(pytest.main(arguments, plugins=[results]))


def run(line: Line, mode: str, suspects: str, *arguments: str) -> int:
    """Run the tests in this process and return pytest's exit code."""
    tell, wait = make_ledger(line.send), line.wait
    del line  # code under test can look into every frame below its own
    paths = os.environ.pop("TURNWISE_PYTHONPATH", "")
    folder = Path.cwd() / os.environ.pop("TURNWISE_FOLDER", "")
    here = os.environ.pop("TURNWISE_HERE", str(folder))
    start = _own_way(list(arguments)) if mode.startswith("own") else _our_way(mode, list(arguments))
    if paths:
        os.environ["PYTHONPATH"] = paths  # for the Python processes that tests start
    added = [os.path.normpath(folder / path) for path in (here, *paths.split(os.pathsep)) if path]
    # Last, so that only a plugin which the tests' settings name is found there: pytest imports more as it starts.
    sys.path[:] = [*sys.path[1:], *added]
    gc.freeze() if hasattr(gc, "freeze") else None
    gc.enable()

    def open_repository() -> None:
        """From now on its modules come before all others, as they do where pytest runs by itself."""
        sys.path[:] = [*added, *(path for path in sys.path if path not in added)]
        wait()

    guard = Guard(read_suspects(suspects), lambda text: tell("row", {"alarm": text}))
    watch_unittest(tell, guard.skipped)
    watch_assertions(guard.before_assertion)
    plugin = Results(tell, open_repository, guard, explain=mode.endswith("explain"))
    guard.keep(plugin)
    os.chdir(str(folder))
    tell("row", {"runner": "pytest"})
    code = start(plugin)
    plugin.finished(code)
    return code
