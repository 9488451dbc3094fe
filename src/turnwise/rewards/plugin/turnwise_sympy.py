"""Listens to SymPy's own test runner, as turnwise_script.py listens to unittest. Runs inside the sandbox.

That runner is a module of the repository, `runtests`, which is loaded along with the code under test. It runs each file
of tests in `SymPyTests.test_file`, which tells a `PyTestReporter` how every test ended. What is told there is reported
to the supervisor if it is told by that very function of a test that the file, as it was before, really holds. A test
that is skipped or expected to fail is not reported: to SWE-bench's reading of the log it is missing too.

Between a test and the reporter lies much that the code under test can change for a moment. So an error is also noted
where it leaves the test, in a ledger that an audit hook alone holds, and never struck out again: a pass must agree.
"""

import contextlib
import functools
import inspect
import random
import sys
import warnings
from importlib.machinery import PathFinder, SourceFileLoader
from pathlib import Path
from types import CodeType, FunctionType
from typing import Any, Callable, Dict, Iterator, List, Set, Tuple

from turnwise_guard import Guard
from turnwise_supervisor import Row

# Modules of the repository that decide how a test ends, by the last part of their names, and those that they lean on.
RUNNER, ASSERTIONS = ".runtests", ".pytest"
LEANED_ON = (contextlib, inspect, random, warnings)
WORDS = {"test_pass": "passed", "test_fail": "failed", "test_exception": "error"}
TOLD = (*WORDS, "entering_filename", "entering_test", "test_skip", "test_xfail", "test_xpass")
CANARIES = str(Path(__file__).with_name("turnwise_sympy_canary.py"))
_frame, _exc_info = sys._getframe, sys.exc_info  # the code under test may put others in their place


def _make_ledger(send: Callable[[Row], None]) -> Callable[..., None]:
    """`tell(WHAT, ABOUT, ROW)`: "driver" about the code that drives tests; "called", "raised" and "ended" about a test,
    the last with the row to send. Each is believed from one place alone, told by the frames. Before Python 3.8, which
    has no audit hooks, the code under test can reach what is inside."""
    called: Set[str] = set()
    raised: Set[str] = set()
    drivers: List[CodeType] = []

    def note(frame: Any, what: str, about: Any, row: Row) -> None:
        place = {"driver": _LOADING, "ended": (*_ENDING, *drivers)}.get(what, _TEST)
        if not _stands_in(frame, place) or (drivers and what == "driver") or (what == "ended" and not drivers):
            send({"alarm": "something else than the test runner tells how tests end"})
        elif what == "driver":
            drivers.append(about)
        elif what != "ended":
            (called if what == "called" else raised).add(about)
        else:
            send(row)
            if row["outcome"] == "passed" and (about in raised or about not in called):
                send({"alarm": f"{about} was to pass, although it raised an error or was not called"})

    def listen(event: str, arguments: Tuple[Any, ...]) -> None:
        if event == "turnwise.sympy":
            note(_frame(1), *arguments)

    if not hasattr(sys, "addaudithook"):
        return lambda *arguments: note(_frame(1), *arguments)
    sys.addaudithook(listen)
    return functools.partial(sys.audit, "turnwise.sympy")


def _stands_in(frame: Any, codes: Tuple[CodeType, ...]) -> bool:
    """Whether a frame is of the first code, its caller of the second, and so on."""
    for code in codes:
        if frame is None or frame.f_code is not code:
            return False
        frame = frame.f_back
    return True


def _witnessed(function: Any, tell: Callable[..., None]) -> Any:
    """The test, with a note of what it did."""
    test = _id(function)

    @functools.wraps(function)
    def call() -> Any:
        tell("called", test, {})
        try:
            return function()
        except BaseException:
            tell("raised", test, {})
            raise

    return call


class _Loader(SourceFileLoader):
    """Loads a module as ever, and shows it to `loaded`."""

    loaded: Callable[[Any], None]

    def exec_module(self, module: Any) -> None:
        super().exec_module(module)
        self.loaded(module)


class Finder:
    """Finds the modules that decide how a test ends, for `loaded` to see."""

    def __init__(self, loaded: Callable[[Any], None]) -> None:
        self._loaded = loaded

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        """As a finder of `sys.meta_path`."""
        spec = PathFinder.find_spec(name, path, target) if name.endswith((RUNNER, ASSERTIONS)) else None
        if spec is not None and type(spec.loader) is SourceFileLoader:
            spec.loader = _Loader(spec.loader.name, spec.loader.path)
            spec.loader.loaded = self._loaded
        return spec


class Listener:
    """Listens to the reporter of SymPy's runner."""

    def __init__(self, send: Callable[[Row], None], guard: Guard) -> None:
        self._tell = _make_ledger(send)
        self._guard = guard
        self._runner: List[Any] = []
        self._driver: List[CodeType] = []
        self._files: List[str] = []
        self._tests: Dict[str, Dict[Tuple[str, int], CodeType]] = {}
        self._running: List[Tuple[FunctionType, CodeType, str]] = []

    def install(self) -> None:
        """Wait for the runner to be imported."""
        sys.meta_path.insert(0, Finder(self._loaded))

    def _loaded(self, module: Any) -> None:
        if not module.__file__.endswith(("/runtests.py", "/pytest.py")):
            self._guard.alarm(f"{module.__file__} was loaded in the test runner's place")
        self._guard.require_old(module.__file__)
        self._files.append(module.__file__)
        reporter = vars(module).get("PyTestReporter")
        if reporter is not None and reporter.__module__ == module.__name__:
            self._runner.append(module)
            self._driver.append(module.SymPyTests.test_file.__code__)
            self._tell("driver", self._driver[-1], {})
            for name in TOLD:
                setattr(reporter, name, self._listening(name, getattr(reporter, name)))
            for leaned_on in LEANED_ON:
                self._guard.watch(leaned_on)
        self._guard.watch(module)

    def _listening(self, name: str, method: Any) -> Any:
        def listening(reporter: Any, *arguments: Any) -> Any:
            self._hear(name, reporter, _frame(1), arguments)
            return method(reporter, *arguments)

        return listening

    def _hear(self, name: str, reporter: Any, caller: Any, arguments: Tuple[Any, ...]) -> None:
        if not any(caller.f_code is code for code in self._driver):
            self._guard.alarm("something else than the test runner tells how tests end")
        elif set(TOLD) & set(vars(reporter)) or (name == "test_pass" and (arguments or _exc_info()[0] is not None)):
            self._guard.alarm("the reporter of the test runner was made to tell of a failure as a pass")
        elif name == "entering_filename":
            tests = caller.f_locals["funcs"]
            tests[:] = [_witnessed(test, self._tell) for test in tests]
        elif name == "entering_test":
            self._running[:] = self._entered(arguments[0])
        elif self._running:
            self._ended(WORDS.get(name, ""), *self._running.pop())

    def _entered(self, call: Any) -> Iterator[Tuple[FunctionType, CodeType, str]]:
        """The test's own function, if the file of tests has it and nothing but trusted wrappers lies around it."""
        if not isinstance(call, FunctionType) or call.__code__ is not _TEST[0]:
            self._guard.alarm("a test was put among those of the file")
            return
        function: Any = call.__wrapped__  # type: ignore[attr-defined]
        while isinstance(getattr(function, "__wrapped__", None), FunctionType):
            if not self._is_trusted(function):
                self._guard.alarm(f"code of the patch wraps the test {function.__name__}")
            function = function.__wrapped__
        code = getattr(function, "__code__", None)
        if code is None or code.co_filename in self._files:  # what a test that is a generator yields
            return
        if not _is_same(code, self._tests_of(code.co_filename).get((code.co_name, code.co_firstlineno))):
            self._guard.alarm(f"{code.co_name} is not the test that {code.co_filename} holds")
        yield function, code, _id(call)

    def _ended(self, word: str, function: FunctionType, code: CodeType, test: str) -> None:
        if function.__code__ is not code:
            self._guard.alarm(f"the code of {test} was replaced while it ran")
        used = function.__globals__
        if any(name in used and not self._is_trusted(used[name]) for name in ("raises", "warns")):
            self._guard.alarm(f"what {test} asserts with is not the repository's")
        self._guard.after_test()
        if word:
            self._tell("ended", test, {"id": test, "outcome": word, "names": [code.co_name]})

    def _is_trusted(self, function: Any) -> bool:
        code = getattr(function, "__code__", None)
        return getattr(code, "co_filename", "") in self._files or self._guard.is_trusted(function)

    def _tests_of(self, path: str) -> Dict[Tuple[str, int], CodeType]:
        """The functions of a file of tests, by name and line."""
        if path not in self._tests:
            self._guard.require_old(path)
            whole = compile(Path(path).read_bytes(), path, "exec", dont_inherit=True, optimize=sys.flags.optimize)
            self._tests[path] = {(code.co_name, code.co_firstlineno): code for code in _inner(whole)}
        return self._tests[path]

    def finish(self) -> None:
        """When all tests have run: tests made to fail are seen to fail by the same runner."""
        for runner in self._runner:
            seen = _Canaries()
            runner.SymPyTests(seen, "", False, 0).test_file(CANARIES)
            for name in ("test_assertion", "test_exception"):
                if seen.failed.get(name) is not True:
                    self._guard.alarm(f"a test made to fail ({name}) passed: something makes failing tests pass")


def _code_in(function: Any) -> CodeType:
    """The code of the function that a function makes."""
    return next(value for value in function.__code__.co_consts if isinstance(value, CodeType))


_LOADING = (Listener._loaded.__code__, _Loader.exec_module.__code__)
_TEST = (_code_in(_witnessed),)
_ENDING = (Listener._ended.__code__, Listener._hear.__code__, _code_in(Listener._listening))


class _Canaries:
    """A reporter that keeps which tests were seen to fail."""

    _root_dir = "/"

    def __init__(self) -> None:
        self.failed: Dict[str, bool] = {}
        self.slow_test_functions: List[Any] = []
        self._name = ""

    def entering_test(self, function: Any) -> None:
        self._name = function.__name__

    def test_fail(self, raised: Any) -> None:
        self.failed[self._name] = True

    test_exception = test_fail

    def __getattr__(self, name: str) -> Any:
        return lambda *arguments: None


def _id(function: Any) -> str:
    while hasattr(function, "__wrapped__"):
        function = function.__wrapped__
    code = getattr(function, "__code__", None)
    return f"{getattr(code, 'co_filename', '')}:{getattr(code, 'co_name', '')}"


def _inner(code: CodeType) -> Iterator[CodeType]:
    """All code in a code."""
    for value in code.co_consts:
        if isinstance(value, CodeType):
            yield value
            yield from _inner(value)


def _is_same(one: CodeType, other: Any) -> bool:
    """Whether two codes do the same; their flags may differ, as a runner's own `__future__` imports leave them."""
    if other is None or len(one.co_consts) != len(other.co_consts):
        return False
    if (one.co_code, one.co_names, one.co_varnames) != (other.co_code, other.co_names, other.co_varnames):
        return False
    return all(
        _is_same(left, right) if isinstance(left, CodeType) else (type(left), left) == (type(right), right)
        for left, right in zip(one.co_consts, other.co_consts)  # noqa: B905 - Python 3.6
    )
