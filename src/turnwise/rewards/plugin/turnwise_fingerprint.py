"""What the test machinery is made of, to tell later whether it still is. Runs in the tests' own process."""

import os
import sys
import unittest
import unittest.case
from operator import attrgetter, is_
from types import CodeType, FunctionType, ModuleType
from typing import Any, Callable, Iterator, List, Tuple

# What the names of the test machinery's modules, with a dot behind them, start with.
PACKAGES = ("_pytest.", "pluggy.", "pytest.", "unittest.", "json.", "turnwise_")
# What is looked at after every test, and what once more in the end: the modules that outcomes pass through.
HOT = (
    "builtins",
    "turnwise_audit",
    "turnwise_guard",
    "turnwise_results",
    "turnwise_files",
    "turnwise_fingerprint",
    "turnwise_witness",
    "unittest.case",
    "unittest.result",
    "_pytest.runner",
    "_pytest.reports",
    "_pytest.python",
    "_pytest.python_api",
    "_pytest.raises",
    "_pytest.outcomes",
    "_pytest.skipping",
    "_pytest.unittest",
)
WARM = (
    "pytest",
    "unittest",
    "unittest.suite",
    "unittest.loader",
    "unittest.runner",
    "pluggy._hooks",
    "pluggy._callers",
    "pluggy._manager",
    "pluggy._result",
    "_pytest.main",
    "_pytest.fixtures",
    "_pytest.terminal",
    "_pytest.nodes",
    "_pytest.assertion",
    "_pytest.assertion.util",
    "_pytest.config",
    "turnwise_canary",
    "turnwise_hooks",
    "turnwise_supervisor",
    "turnwise_script",
)
VERSION_OFFSET = 384  # of tp_version_tag in CPython's PyTypeObject, from 3.6 to 3.13
MEMBERS = (FunctionType, property, staticmethod, classmethod)
_CODE = attrgetter("__code__")
_ALL, _MAP, _ZIP = all, map, zip  # the built-in names are among what is looked at


class Names:
    """The functions and classes of one namespace (a module's or a class's), by identity, functions by their code too.

    Compared without a line of Python for each: it is done after every test.
    """

    def __init__(self, owner: str, namespace: Any, is_wanted: Callable[[Any], bool]) -> None:
        self._owner = owner
        self._get = namespace.get
        chosen = [(name, value) for name, value in namespace.items() if is_wanted(value)]
        self._names = tuple(name for name, _ in chosen)
        self._values = tuple(value for _, value in chosen)
        inner = [getattr(value, "__func__", value) for value in self._values]
        # Where there are audit hooks, ours reports that a function's code is set, but hears of every look at it too.
        looked_at = inner if not hasattr(sys, "addaudithook") else ()
        self._functions = tuple(function for function in looked_at if isinstance(function, FunctionType))
        self._codes = tuple(map(_CODE, self._functions))

    def changes(self) -> Iterator[Tuple[str, Any]]:
        """(name, what stands there now) of each that is not as it was."""
        if not _ALL(_MAP(is_, _MAP(self._get, self._names), self._values)):
            for name, value in _ZIP(self._names, self._values):
                if self._get(name) is not value:
                    yield f"{self._owner}.{name}", self._get(name)
        if not _ALL(_MAP(is_, _MAP(_CODE, self._functions), self._codes)):
            for function, code in _ZIP(self._functions, self._codes):
                if function.__code__ is not code:
                    yield f"the code of {self._owner}.{function.__name__}", function


class Versions:
    """Tells whether one of the classes that decide about assertions was changed, even if it was changed back.

    CPython gives each state of a class a number, where it looks attributes up; nothing in Python can set that number.
    """

    __slots__ = ("_classes", "_memory", "_numbers")

    def __init__(self) -> None:
        root = os.getcwd() + os.sep  # noqa: PTH109 - a text
        files = ((kind, getattr(sys.modules[kind.__module__], "__file__", None) or "") for kind in _judging_classes())
        self._classes = tuple(kind for kind, file in files if not file.startswith(root))  # pytest's tests change pytest
        self._memory = -1
        self._numbers: Tuple[bytes, ...] = ()
        if not self._can_tell():
            self._classes = ()

    def _can_tell(self) -> bool:
        """Whether kernel and interpreter show what is needed."""
        try:
            self._memory = os.open("/proc/self/mem", os.O_RDONLY)
            probe = type("Probe", (), {})
            numbers = [self._number(probe), self._number(probe)]
            setattr(probe, "name", 1)  # noqa: B010 - mypy
            return numbers[0] == numbers[1] != self._number(probe)
        except OSError:
            return False

    def take(self) -> None:
        """Remember the classes as they are."""
        self._numbers = tuple(map(self._number, self._classes))

    def changed(self) -> Iterator[type]:
        """The classes that have been changed since."""
        for kind, number in _ZIP(self._classes, self._numbers):
            if self._number(kind) != number:
                yield kind

    def _number(self, kind: type) -> bytes:
        getattr(kind, "__hash__", None)  # makes CPython give it a number: `type` does not answer for this name
        return os.pread(self._memory, 4, id(kind) + VERSION_OFFSET)


def _judging_classes() -> Iterator[type]:
    yield from (unittest.TestCase, *unittest.case._AssertRaisesContext.__mro__[:-1])
    for name in ("_pytest.python_api", "_pytest.raises"):
        for value in list(vars(sys.modules.get(name, object)).values()):
            if isinstance(value, type) and value.__module__ == name:
                yield value


class Fingerprint:
    """The test machinery as it is now: what is to be looked at after every test, and all of it."""

    def __init__(self) -> None:
        self.hot: List[Names] = []
        self.all: List[Names] = []
        self.assertions = list(_names_of_assertions())
        for name in (*HOT, *WARM):
            if name in sys.modules:
                found = list(_names_of(name, vars(sys.modules[name])))
                self.all += found
                self.hot += found if name in HOT else []

    def add(self, module: Any) -> None:
        """Look at one more module after every test, and at what it imported."""
        found = [Names(module.__name__, vars(module), _is_tool), *_names_of(module.__name__, vars(module))]
        self.all += found
        self.hot += found


def _names_of_assertions() -> Iterator[Names]:
    for kind in (unittest.TestCase, *unittest.case._AssertRaisesContext.__mro__[:-1]):
        yield Names(f"unittest.case.{kind.__name__}", vars(kind), lambda value: isinstance(value, MEMBERS))


def _names_of(module: str, namespace: Any) -> Iterator[Names]:
    if module == "builtins":
        yield Names(module, namespace, callable)
        return
    yield Names(module, namespace, lambda value: isinstance(value, (FunctionType, type)))
    for value in list(namespace.values()):
        if isinstance(value, type) and value.__module__ == module:
            yield Names(f"{module}.{value.__name__}", vars(value), lambda value: isinstance(value, MEMBERS))


def _is_tool(value: Any) -> bool:
    return callable(value) or isinstance(value, ModuleType)


def own_codes() -> Iterator[CodeType]:
    """The code of the test machinery's own functions, which is what it was: that need not be read again."""
    for name, module in list(sys.modules.items()):
        if (name + ".").startswith(PACKAGES):
            for value in list(vars(module).values()):
                inner = vars(value).values() if isinstance(value, type) and value.__module__ == name else (value,)
                yield from map(_CODE, filter(_is_function, inner))


def _is_function(value: Any) -> bool:
    return type(value) is FunctionType
