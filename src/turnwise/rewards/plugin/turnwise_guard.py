"""Notices when code of the repository changes what judges it. Runs inside the sandbox, in the tests' own process.

Code under test shares its process with the test machinery, so nothing here can make tampering impossible; it makes it
show. Five looks, each at something else:
- a fingerprint of pytest, pluggy, unittest, the builtins and ourselves, taken before the repository's code is imported;
- the hooks and plugins that are registered, and where their code lies;
- an audit hook, which Python code cannot take off again: patching functions in place, searching the interpreter;
- the functions of tests as they are called, and unittest's assertions as they are made;
- canaries (turnwise_canary.py): tests made to fail, run by the same machinery. One that passes gives it away.

Code in files that the patch under judgement does not touch is trusted: it is the repository's own, as it was.
"""

import marshal
import os
import sys
import unittest
import unittest.case
from types import CodeType, FunctionType
from typing import Any, Callable, Container, Dict, FrozenSet, Iterable, Iterator, List, NamedTuple, Sequence, Set, Tuple

from turnwise_audit import is_library, make_audit
from turnwise_files import Files
from turnwise_fingerprint import PACKAGES, Fingerprint, Names, Versions, own_codes
from turnwise_hooks import callers_in, implementations, lacks_own
from turnwise_witness import hollow_assertions

# What decides in a unittest.TestCase whether an assertion holds, beside the assertions themselves.
JUDGING = ("_getAssertEqualityFunc", "_baseAssertEqual", "_formatMessage", "_truncateMessage")
ASSERTIONS = frozenset(JUDGING) | frozenset(
    name for name in vars(unittest.TestCase) if name.startswith(("assert", "fail"))
)
SMALL = tuple(range(-5, 257))  # the integers that CPython has one object of each
# What unittest does not take for an error.
HARMLESS = (unittest.SkipTest, unittest.case._ShouldStop)  # type: ignore[attr-defined]
MARKING = frozenset(("add_marker", "applymarker"))
EXPECTED = "__unittest_expecting_failure__"


class Start(NamedTuple):
    """How things were before the repository's code was imported."""

    fingerprint: Fingerprint
    hooks: FrozenSet[Any]
    tracers: Tuple[Any, Any]
    codes: Dict[int, CodeType]
    files: FrozenSet[str]
    callers: FrozenSet[str]


LISTENERS: List[Callable[[str], None]] = []


class Sealed(type):
    """A class that cannot be patched: setting an attribute of it raises an alarm instead."""

    def __setattr__(cls, name: str, value: Any) -> None:
        for listen in LISTENERS:
            listen(f"{cls.__name__}.{name} of the test machinery was to be replaced")
        raise TypeError(f"{cls.__name__}.{name} cannot be set")


class Guard(metaclass=Sealed):
    """Raises alarms, each once.

    `suspects` are the paths, relative to the root, that the patch under judgement touches.
    """

    __slots__ = (
        "_expected",
        "_files",
        "_items",
        "_kept",
        "_raised",
        "_report",
        "_skips",
        "_small",
        "_start",
        "_versions",
        "_watched",
    )

    def __init__(self, suspects: Iterable[str], alarm: Callable[[str], None]) -> None:
        self._files = Files(suspects)
        self._report = alarm
        self._raised: Set[str] = set()
        self._items: Dict[str, List[Tuple[Any, CodeType, bytes]]] = {}
        self._versions = Versions()
        self._small = marshal.dumps(SMALL, 2)
        self._expected: Set[str] = set()
        self._skips: Set[Any] = set()
        self._start: List[Start] = []
        self._kept: List[Tuple[Any, str, Any]] = []
        self._watched: Set[str] = set()
        LISTENERS.append(self.alarm)
        self.keep(self)

    def start(self, pluginmanager: Any) -> None:
        """Take the fingerprint: every plugin of the environment is imported by now, and no code of the repository.

        A repository that is pytest, or a plugin of it, is judged by itself: what it registered, and what pytest's own
        files register later, is taken as right.
        """
        found = [(name, implementation.function) for name, implementation in implementations(pluginmanager)]
        hooks, callers = frozenset(function for _, function in found), frozenset(callers_in(found))
        tracers, codes = (sys.gettrace(), sys.getprofile()), {id(code): code for code in own_codes()}
        files = frozenset(_own_files())
        self._start.append(Start(Fingerprint(), hooks, tracers, codes, files, callers))
        self._files.trust(files)
        if hasattr(sys, "addaudithook"):
            sys.addaudithook(make_audit(self._files, self._watched, self.alarm))

    def keep(self, owner: Any) -> None:
        """Watch that an object's attributes stay the objects that they are."""
        self._kept.extend((owner, name, getattr(owner, name)) for name in owner.__slots__)

    def watch(self, module: Any) -> None:
        """Look after every test at a module of the test machinery that comes with the repository, too.

        What it imported counts as well: no test of it changes that for good.
        """
        self._start[0].fingerprint.add(module)
        self._watched.add(module.__name__)

    def require_old(self, path: str) -> None:
        """Raise an alarm where a file of the repository is not the one that was there at the start."""
        if self._files.is_new(path):
            self.alarm(f"{path} was changed while the tests ran")

    def alarm(self, text: str) -> None:
        """Say that something is wrong."""
        if text not in self._raised:
            self._raised.add(text)
            self._report(text)

    def collected(self, item: Any) -> None:
        """Remember the code of a test at the moment that it was collected."""
        self._items[item.nodeid] = [
            (function, code, _bytes(code)) for function, code in _functions(getattr(item, "obj", None))
        ]
        *wrappers, code = [code for _, code, _ in self._items[item.nodeid]] or [_functions.__code__]
        if self._is_patchs(code):
            self.alarm(f"the code of {item.nodeid} is the patch's own")
        elif any(map(self._is_patchs, wrappers)) and not self._files.is_decorated(code):
            self.alarm(f"code of the patch was put around {item.nodeid}")
        for _, code, _ in self._items[item.nodeid]:
            self.require_old(code.co_filename)
        self._expect(item)

    def _is_patchs(self, code: CodeType) -> bool:
        forged = self._files.is_claimed(code.co_filename) and not self._files.holds(code)
        return forged or self._files.is_suspect(code.co_filename)

    def _expect(self, item: Any) -> None:
        functions = [function for function, _, _ in self._items.get(item.nodeid, ())]
        asked = [code for _, code, _ in self._items.get(item.nodeid, ()) if MARKING & set(code.co_names)]
        marked = any(getattr(owner, EXPECTED, False) for owner in (*functions, getattr(item, "cls", None)))
        if asked or marked or next(item.iter_markers("xfail"), None) is not None:
            self._expected.add(item.nodeid)

    def expects_failure(self, item: Any) -> bool:
        """Whether the test itself says that it fails: when it was collected, by its fixtures, or in its own words."""
        return item.nodeid in self._expected

    def before_and_after(self, item: Any, before: bool) -> None:
        """A test's own function is still the one collected."""
        if before:
            self._expect(item)
            self._versions.take()
        self._require_unchanged(item.nodeid, self._items.get(item.nodeid, ()))

    def _require_unchanged(self, name: str, functions: Iterable[Tuple[Any, CodeType, bytes]]) -> None:
        for function, code, was in functions:
            if function.__code__ is not code or _bytes(code) != was:
                self.alarm(f"the code of {name} was replaced after it was collected")

    def before_call(self, item: Any) -> None:
        """What is called for a test is the function collected, in nothing but wrappers that are to be trusted."""
        known = [function for function, _, _ in self._items.get(item.nodeid, ())]
        now = [function for function, _ in _functions(getattr(item, "obj", None))]
        if known and not (self._reaches(now, known[-1]) and self._are_trusted(now, known)):
            self.alarm(f"the function of {item.nodeid} was replaced after it was collected")

    def _reaches(self, functions: List[Any], known: Any) -> bool:
        """Whether a test's function is among them, or a plugin's own that calls it: some put one in its place."""
        callers = self._start[0].callers
        return any(function is known or function.__code__.co_filename in callers for function in functions)

    def _are_trusted(self, functions: List[Any], known: List[Any]) -> bool:
        return all(any(function is one for one in known) or self.is_trusted(function) for function in functions)

    def before_assertion(self, test: Any) -> None:
        """Between the code under test and the word of unittest on it stands nothing of the patch's.

        Looked at here, because what is put in the way in the test itself may be gone again when the test has ended.
        """
        if not self._start:
            return
        self._check(self._start[0].fingerprint.assertions)
        own, kind = vars(test), type(test)
        given = [own[name] for name in ASSERTIONS & own.keys()]
        given += [value for value in own.get("_type_equality_funcs", {}).values() if not isinstance(value, str)]
        given += [getattr(kind, name) for name in JUDGING if getattr(kind, name) is not vars(unittest.TestCase)[name]]
        if not all(isinstance(value, type) or self.is_trusted(value) for value in given):
            self.alarm(f"code of the patch decides whether the assertions of {test} hold")
        if issubclass(test.failureException, HARMLESS):
            self.alarm(f"a failure of {test} was to end it as something else")

    def loaded(self, test: Any) -> None:
        """A test of unittest was made: what skips it now is the tests' own."""
        if _is_skipped(type(test), getattr(type(test), test._testMethodName, None)):
            self._skips.add(id(test))

    def skipped(self, test: Any, traceback: Any) -> None:
        """A test of unittest is skipped while it runs; what the patch's own code skips, the tests do not."""
        if not self.is_raised_by_patch(traceback):
            self._skips.add(id(test))

    def may_skip(self, test: Any) -> bool:
        """Whether the tests themselves skip this one: an item of pytest, or a test that runs as unittest does."""
        if isinstance(test, unittest.TestCase):
            return id(test) in self._skips or type(test).run is not unittest.TestCase.run
        return test.nodeid in self._skips

    def starts(self, test: Any) -> None:
        """A test of unittest: its method is none of the patch's, and in no wrapper of it but as a decorator."""
        self.after_test()  # what was patched as the files of tests were imported
        self._versions.take()
        function = getattr(test, getattr(test, "_testMethodName", ""), None)
        self._items[str(id(test))] = [(function, code, _bytes(code)) for function, code in _functions(function)]
        *wrappers, code = [code for _, code in _functions(function)] or [_functions.__code__]
        self._require_own(str(test), getattr(test, "_testMethodName", ""), code, dir(type(test)))
        wrapped = any(self._files.is_suspect(wrapper.co_filename) for wrapper in wrappers)
        if self._is_patchs(code) or code.co_filename.startswith("<"):
            self.alarm(f"the code of {test} is the patch's own")
        elif wrapped and not self._files.is_decorated(code):
            self.alarm(f"code of the patch was put around {test}")

    def called(self, test: str, package: str) -> None:
        """A test has just been called: what decides about its assertions, in a package, was not changed meanwhile."""
        for kind in self._versions.changed():
            if kind.__module__.startswith(package):
                self.alarm(f"{kind.__module__}.{kind.__name__} was changed while {test} ran")

    def ends(self, test: Any) -> None:
        """The assertions of a test of unittest do find what is wrong, and its method is what it was."""
        self._require_unchanged(str(test), self._items.pop(str(id(test)), ()))
        self.called(str(test), "unittest")
        if not all(self.is_trusted(function) for function in hollow_assertions(test)):
            self.alarm(f"assertions of {test} hold whatever they are given")

    def after_test(self) -> None:
        """What a test may patch it has put back by now."""
        for owner, name, value in self._kept:
            if getattr(owner, name, None) is not value:
                self.alarm(f"{name} of the test machinery was replaced")
        if marshal.dumps(SMALL, 2) != self._small:
            self.alarm("the code under test changed numbers in memory")
        if self._start:
            self._check(self._start[0].fingerprint.hot)

    def before_tests(self, pluginmanager: Any, items: Sequence[Any]) -> None:
        """The first look, when all of the tests' files have been imported and none has run."""
        for item in items:
            marked = any(True for name in ("skip", "skipif") for _ in item.iter_markers(name))
            asks = any(MARKING & set(code.co_names) for _, code, _ in self._items.get(item.nodeid, ()))
            if marked or asks or _is_skipped(getattr(item, "cls", None), getattr(item, "obj", None)):
                self._skips.add(item.nodeid)
        names = frozenset(map(_name, items))
        for item in items:
            for _, code, _ in self._items.get(item.nodeid, ())[-1:]:
                self._require_own(item.nodeid, _name(item), code, names)
        self._look_at_all(pluginmanager)

    def _require_own(self, test: str, name: str, code: CodeType, others: Container[str]) -> None:
        """What a test is collected as is what its file defines under its name, and not another of its tests."""
        if code.co_name != name and code.co_name in others and self._files.defines(code.co_filename, name):
            self.alarm(f"{code.co_name} stands for {test}")

    def finish(self, pluginmanager: Any) -> None:
        """The last look, when all tests have run."""
        if not self._start:
            return
        self._look_at_all(pluginmanager)
        for tracer, before in zip((sys.gettrace(), sys.getprofile()), self._start[0].tracers):  # noqa: B905 - Python 3.6
            if tracer is not None and tracer is not before and not self.is_trusted(tracer):
                self.alarm("the code under test left a trace function behind")

    def _look_at_all(self, pluginmanager: Any) -> None:
        self._check(self._start[0].fingerprint.all)
        for path in self._files.new_modules():
            self.require_old(path)
        self.check_hooks(pluginmanager)

    def _check(self, places: List[Names]) -> None:
        for names in places:
            for name, now in names.changes():
                if not self.is_trusted(now):
                    self.alarm(f"{name}, of the test machinery, was replaced")

    def check_hooks(self, pluginmanager: Any) -> None:
        """Every hook of pytest is implemented by the environment or by files that the patch does not touch."""
        for name, implementation in implementations(pluginmanager):
            if implementation.function not in self._start[0].hooks and not self.is_trusted(implementation.function):
                self.alarm(f"{name} is hooked by code of the patch")
        if lacks_own(self._start[0].hooks, pluginmanager):
            self.alarm("a hook of the test machinery was taken out")

    def is_trusted(self, value: Any) -> bool:
        """Whether a function (or what wraps one) is of a file that the patch does not touch, as it was before."""
        if _is_mock(value):
            return all(self.is_trusted(given) for given in _given_to_mock(value))
        code = getattr(getattr(value, "__func__", value), "__code__", None)
        if not isinstance(code, CodeType) or id(code) in self._start[0].codes:
            return isinstance(code, CodeType)
        return not self._files.is_suspect(code.co_filename) and self._files.holds(code)

    def is_raised_by_patch(self, traceback: Any) -> bool:
        """Whether what raised an error is neither the test machinery nor code of a file that was there before and that
        the patch does not touch. The standard library is not believed: it only does what it is given."""
        code = self.who_raised(traceback)
        if code is None:
            return False
        path = code.co_filename
        return is_library(path) or self._is_patchs(code) or not self._files.was_there(path)

    def who_raised(self, traceback: Any) -> Any:
        """The innermost code that is not the test machinery's; None where all is."""
        code = None
        while traceback is not None:
            found = traceback.tb_frame.f_code
            if self._files.real(found.co_filename) not in self._start[0].files:
                code = found
            traceback = traceback.tb_next
        return code


def _bytes(code: CodeType) -> bytes:
    """The code and its constants, which can be changed in memory; in a format that tells nothing of references to
    them, nor whether a text is interned: those change as tests run."""
    try:
        return marshal.dumps(code, 0)
    except ValueError:  # a constant that something made
        return b""


def _name(item: Any) -> str:
    """What a test of pytest is called without its parameters; the first name is of functions alone."""
    return str(getattr(item, "originalname", None) or item.name)


def _is_skipped(kind: Any, method: Any) -> bool:
    """Whether unittest skips a test by its class or its method; some decide that as late as they are asked."""
    places = (*getattr(kind, "__mro__", ()), getattr(method, "__func__", method))
    return any("__unittest_skip__" in getattr(place, "__dict__", ()) for place in places)


def _is_mock(value: Any) -> bool:
    """Whether a value is a mock: a test's own, of a wider scope than one test. Each mock has a class of its own."""
    mock = sys.modules.get("unittest.mock")
    return mock is not None and type(value).__mro__[1:2] in [(kind,) for kind in vars(mock).values()]


def _given_to_mock(mock: Any) -> List[Any]:
    given = [vars(mock).get(name) for name in ("_mock_side_effect", "_mock_wraps")]
    return [value for value in given if callable(value) and not _is_error(value)]


def _is_error(value: Any) -> bool:
    return isinstance(value, BaseException) or (isinstance(value, type) and issubclass(value, BaseException))


def _own_files() -> Iterator[str]:
    for name, module in list(sys.modules.items()):
        file = getattr(module, "__file__", None)
        if (name + ".").startswith(PACKAGES) and file is not None:
            yield os.path.realpath(str(file))


def _functions(function: Any) -> Iterator[Tuple[Any, CodeType]]:
    """A function and what it wraps, outermost first."""
    while function is not None:
        function = getattr(function, "__func__", function)
        if isinstance(function, FunctionType):
            yield function, function.__code__
        function = getattr(function, "__wrapped__", None)
