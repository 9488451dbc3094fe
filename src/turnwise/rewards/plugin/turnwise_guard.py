"""Notices when code of the repository changes what judges it. Runs inside the sandbox, in the tests' own process.

Code under test shares its process with the test machinery, so nothing here can make tampering impossible; it makes it
show. Four looks, each at something else:
- a fingerprint of pytest, pluggy, unittest, the builtins and ourselves, taken before the repository's code is imported;
- the hooks and plugins that are registered, and where their code lies;
- an audit hook, which Python code cannot take off again: patching functions in place, searching the interpreter;
- canaries (turnwise_canary.py): tests made to fail, run by the same machinery. One that passes gives it away.

Code in files that the patch under judgement does not touch is trusted: it is the repository's own, as it was.
"""

import linecache
import os
import sys
from operator import attrgetter, is_
from pathlib import Path
from types import CodeType, FunctionType
from typing import Any, Callable, Dict, FrozenSet, Iterator, List, NamedTuple, Set, Tuple

PACKAGES = ("_pytest", "pluggy", "pytest", "unittest", "json", "turnwise_")
# What is looked at after every test, and what once more in the end: the modules that outcomes pass through.
HOT = (
    "builtins",
    "turnwise_guard",
    "turnwise_results",
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
    "json",
    "json.encoder",
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
    "turnwise_supervisor",
    "turnwise_script",
)
SEARCHES = frozenset(("gc.get_objects", "gc.get_referrers", "gc.get_referents", "sys._current_frames"))
SEARCHES |= frozenset(("sys.settrace", "sys.setprofile"))
MARKING = frozenset(("add_marker", "applymarker"))
EXPECTED = "__unittest_expecting_failure__"
PATCHES = frozenset(("__code__", "__defaults__", "__kwdefaults__"))
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


class Fingerprint:
    """The test machinery as it is now: what is to be looked at after every test, and all of it."""

    def __init__(self) -> None:
        self.hot: List[Names] = []
        self.all: List[Names] = []
        for name in (*HOT, *WARM):
            if name in sys.modules:
                found = list(_names_of(name, vars(sys.modules[name])))
                self.all += found
                self.hot += found if name in HOT else []


def _names_of(module: str, namespace: Any) -> Iterator[Names]:
    if module == "builtins":
        yield Names(module, namespace, callable)
        return
    yield Names(module, namespace, lambda value: isinstance(value, (FunctionType, type)))
    for value in list(namespace.values()):
        if isinstance(value, type) and value.__module__ == module:
            yield Names(f"{module}.{value.__name__}", vars(value), lambda value: isinstance(value, MEMBERS))


class Start(NamedTuple):
    """How things were before the repository's code was imported."""

    fingerprint: Fingerprint
    hooks: FrozenSet[Any]
    tracers: Tuple[Any, Any]
    files: FrozenSet[str]


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

    __slots__ = ("_expected", "_items", "_kept", "_raised", "_report", "_start", "_suspects")

    def __init__(self, suspects: List[str], alarm: Callable[[str], None]) -> None:
        root = str(Path.cwd()) + os.sep
        self._suspects = frozenset(root + path for path in suspects)
        self._report = alarm
        self._raised: Set[str] = set()
        self._items: Dict[str, List[Tuple[Any, CodeType]]] = {}
        self._expected: Set[str] = set()
        self._start: List[Start] = []
        self._kept: List[Tuple[Any, str, Any]] = []
        LISTENERS.append(self.alarm)
        self.keep(self)

    def start(self, pluginmanager: Any) -> None:
        """Take the fingerprint: every plugin of the environment is imported by now, and no code of the repository.

        A repository that is pytest, or a plugin of it, is judged by itself: what it registered, and what pytest's own
        files register later, is taken as right.
        """
        hooks = frozenset(implementation.function for _, implementation in _implementations(pluginmanager))
        self._start.append(Start(Fingerprint(), hooks, (sys.gettrace(), sys.getprofile()), frozenset(_own_files())))
        if hasattr(sys, "addaudithook"):
            sys.addaudithook(self._make_audit())

    def keep(self, owner: Any) -> None:
        """Watch that an object's attributes stay the objects that they are."""
        self._kept.extend((owner, name, getattr(owner, name)) for name in owner.__slots__)

    def alarm(self, text: str) -> None:
        """Say that something is wrong."""
        if text not in self._raised:
            self._raised.add(text)
            self._report(text)

    def collected(self, item: Any) -> None:
        """Remember the code of a test at the moment that it was collected."""
        self._items[item.nodeid] = list(_functions(item))
        if any(code.co_filename in self._suspects for _, code in self._items[item.nodeid]):
            self.alarm(f"the code of {item.nodeid} is the patch's own")
        self._expect(item)

    def _expect(self, item: Any) -> None:
        functions = [function for function, _ in self._items.get(item.nodeid, ())]
        asked = [code for _, code in self._items.get(item.nodeid, ()) if MARKING & set(code.co_names)]
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
        for function, code in self._items.get(item.nodeid, ()):
            if function.__code__ is not code:
                self.alarm(f"the code of {item.nodeid} was replaced after it was collected")

    def after_test(self) -> None:
        """What a test may patch it has put back by now."""
        for owner, name, value in self._kept:
            if getattr(owner, name, None) is not value:
                self.alarm(f"{name} of the test machinery was replaced")
        if self._start:
            self._check(self._start[0].fingerprint.hot)

    def finish(self, pluginmanager: Any) -> None:
        """The last look, when all tests have run."""
        if not self._start:
            return
        self._check(self._start[0].fingerprint.all)
        self.check_hooks(pluginmanager)
        for tracer, before in zip((sys.gettrace(), sys.getprofile()), self._start[0].tracers):  # noqa: B905 - Python 3.6
            if tracer is not None and tracer is not before and not self._is_trusted(tracer):
                self.alarm("the code under test left a trace function behind")

    def _check(self, places: List[Names]) -> None:
        for names in places:
            for name, now in names.changes():
                if not self._is_trusted(now):
                    self.alarm(f"{name}, of the test machinery, was replaced")

    def check_hooks(self, pluginmanager: Any) -> None:
        """Every hook of pytest is implemented by the environment or by files that the patch does not touch."""
        for name, implementation in _implementations(pluginmanager):
            if implementation.function not in self._start[0].hooks and not self._is_trusted(implementation.function):
                self.alarm(f"{name} is hooked by code of the patch")
        missing = self._start[0].hooks - {
            implementation.function for _, implementation in _implementations(pluginmanager)
        }
        if any(str(getattr(function, "__module__", "")).startswith(PACKAGES) for function in missing):
            self.alarm("a hook of the test machinery was taken out")

    def _is_trusted(self, value: Any) -> bool:
        """Whether a function (or what wraps one) is of a file, really there, that the patch does not touch."""
        if type(value).__mro__[-2].__module__ == "unittest.mock":
            return True  # a test's own, of a wider scope than one test
        function = getattr(value, "__func__", value)
        code = getattr(function, "__code__", None)
        if code is None:
            return False
        path = str(Path(code.co_filename).absolute())
        if path in self._suspects and path not in self._start[0].files:
            return False
        line = linecache.getline(path, code.co_firstlineno).strip()
        return line.startswith((f"def {code.co_name}", f"async def {code.co_name}", "@")) or "lambda" in line

    def is_raised_by_patch(self, traceback: Any) -> bool:
        """Whether the innermost code of a traceback, the test machinery aside, is of a file that the patch touches."""
        code = who_raised(traceback)
        return code is not None and str(Path(code.co_filename).absolute()) in self._suspects

    def _make_audit(self) -> Callable[[str, Tuple[Any, ...]], None]:
        suspects, alarm, frame = self._suspects, self.alarm, sys._getframe
        searches, patches, packages = SEARCHES, PATCHES, PACKAGES

        def audit(event: str, args: Tuple[Any, ...]) -> None:
            if event in searches:
                path = frame(1).f_code.co_filename
                if path in suspects:
                    alarm(f"{path} calls {event}: it searches or steers the interpreter that judges it")
            elif event == "object.__setattr__" and args[1] in patches:
                module = str(getattr(args[0], "__module__", ""))
                if args[1] == "__code__" and frame(1).f_code.co_filename in suspects:
                    alarm(f"code of the patch replaces the code of {args[0].__qualname__}")
                elif module.startswith(packages):
                    alarm(f"{args[1]} of {args[0].__qualname__}, a function of the test machinery, was set")

        return audit


def _own_files() -> Iterator[str]:
    for name, module in list(sys.modules.items()):
        file = getattr(module, "__file__", None)
        if name.startswith(PACKAGES) and file is not None:
            yield str(Path(file).absolute())


def who_raised(traceback: Any) -> Any:
    """The innermost code that is not the test machinery's; None where it is all of that."""
    code = None
    while traceback is not None:
        if not str(traceback.tb_frame.f_globals.get("__name__", "")).startswith(PACKAGES):
            code = traceback.tb_frame.f_code
        traceback = traceback.tb_next
    return code


def _implementations(pluginmanager: Any) -> Iterator[Tuple[str, Any]]:
    for name, caller in list(vars(pluginmanager.hook).items()) if pluginmanager is not None else ():
        if name.startswith("pytest_"):
            for implementation in caller.get_hookimpls():
                yield name, implementation


def _functions(item: Any) -> Iterator[Tuple[Any, CodeType]]:
    function = getattr(item, "obj", None)
    while function is not None:
        function = getattr(function, "__func__", function)
        if isinstance(function, FunctionType):
            yield function, function.__code__
        function = getattr(function, "__wrapped__", None)
