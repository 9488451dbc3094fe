"""Sees at the source how a test's own function ends, whatever the test machinery then makes of it.

The machinery hands an error through dozens of objects that code under test can reach and change for a moment: classes,
instances, hooks, frames. So the error is noted where it leaves the test's function, in a ledger that only an audit hook
holds: nothing leads there but a search of the interpreter, which raises an alarm itself. A row that says "passed" must
agree with the ledger. Needs Python 3.6 or later, nothing else.
"""

import functools
import sys
import unittest.case
from types import CodeType, FunctionType
from typing import Any, Callable, Dict, List, Set, Tuple

__unittest = True  # unittest leaves the frames of such modules out of tracebacks
SKIPS = (unittest.SkipTest, getattr(sys.modules.get("_pytest.outcomes"), "Skipped", unittest.SkipTest))
Row = Dict[str, Any]
Tell = Callable[..., None]


def make_ledger(send: Callable[[Row], None]) -> Tell:
    """`tell(WHAT, ...)`, from now on the only way to `send`.

    WHAT is "row" with a row, the test that it is of (None: no test) and whether the test's function must have been
    called; "starts", "called" and "raised" with a test; "stands_for" with an object's id and the test that it is told
    for. Before Python 3.8, which has no audit hooks, the ledger can be reached.
    """
    called: Set[Any] = set()
    raised: Set[Any] = set()
    names: Dict[int, Any] = {}

    def tell_row(row: Row, test: Any = None, must_be_called: bool = False) -> None:
        send(dict(row))
        if row.get("outcome") == "passed" and not row.get("expected"):
            if test in raised:
                send({"alarm": f"{row['id']} raised an error, and yet was to pass"})
            elif must_be_called and test not in called:
                send({"alarm": f"{row['id']} was to pass without a call of its function"})

    def starts(test: Any) -> None:
        called.discard(test)
        raised.discard(test)

    do: Dict[str, Callable[..., None]] = {
        "row": tell_row,
        "starts": starts,
        "called": called.add,
        "raised": lambda test: raised.add(names.get(test, test)),
        "stands_for": names.__setitem__,
    }

    frame, ours = sys._getframe, _our_codes()

    def listen(event: str, arguments: Tuple[Any, ...]) -> None:
        if event == "turnwise.tell":
            if id(frame(1).f_code) not in ours:
                send({"alarm": "code under test tells of the tests what only the test run may tell"})
            do[arguments[0]](*arguments[1:])

    if not hasattr(sys, "addaudithook"):
        return lambda *arguments: do[arguments[0]](*arguments[1:])
    sys.addaudithook(listen)
    return functools.partial(sys.audit, "turnwise.tell")


def _our_codes() -> Dict[int, CodeType]:
    """The code of the modules beside this one, by identity."""
    modules = [module for name, module in sys.modules.items() if name.startswith("turnwise_")]
    functions = [value for module in modules for value in vars(module).values()]
    functions += [member for kind in functions if isinstance(kind, type) for member in vars(kind).values()]
    found = [value.__code__ for value in functions if isinstance(value, FunctionType)]
    for code in found:
        found += [constant for constant in code.co_consts if isinstance(constant, CodeType)]
    return {id(code): code for code in found}


def witnessed(function: Callable[..., Any], test: Any, tell: Tell) -> Callable[..., Any]:
    """The test's function, with a note of what it did."""

    @functools.wraps(function)
    def call(*arguments: Any, **named: Any) -> Any:
        __tracebackhide__ = True  # pytest's word for the same as `__unittest`
        tell("called", test)
        try:
            return function(*arguments, **named)
        except BaseException:
            tell("raised", test)
            raise

    return call


class _Part:
    """A part of a test of unittest as it runs, in what unittest runs it in; made of nothing that could be patched."""

    __slots__ = ("_inner", "_skips", "_tell", "_test")

    def __init__(self, inner: Any, test: Any, tell: Tell, skips: Callable[[Any, Any], None]) -> None:
        self._inner = inner
        self._test = getattr(test, "test_case", test)  # a sub-test's
        self._tell = tell
        self._skips = skips

    def __enter__(self) -> Any:
        return self._inner.__enter__()

    def __exit__(self, kind: Any, error: Any, traceback: Any) -> Any:
        if kind is not None and issubclass(kind, SKIPS):  # what an error says of its own class is not believed
            self._skips(self._test, traceback)
        elif kind is not None:
            self._tell("raised", id(self._test))
        return self._inner.__exit__(kind, error, traceback)


def watch_unittest(tell: Tell, skips: Callable[[Any, Any], None]) -> None:
    """Note every error in a part of a test: set-up, method, sub-test. Tests are told by the object's id.

    `skips` hears of each test that skips itself, and of the traceback.
    """
    outcome: Any = unittest.case._Outcome  # type: ignore[attr-defined]
    original = outcome.testPartExecutor

    def executor(self: Any, test: Any, *arguments: Any, **named: Any) -> _Part:
        return _Part(original(self, test, *arguments, **named), test, tell, skips)

    outcome.testPartExecutor = executor


def watch_loading(loaded: Callable[[Any], None], case: Any = unittest.TestCase) -> None:
    """`loaded` hears of every test of unittest that is made."""
    original = case.__init__

    @functools.wraps(original)
    def made(self: Any, *arguments: Any, **named: Any) -> None:
        original(self, *arguments, **named)
        loaded(self)

    case.__init__ = made


def watch_assertions(look: Callable[[Any], None], case: Any = unittest.TestCase) -> None:
    """Have every assertion of unittest `look` at the test that makes it, when the code under test has done its part."""
    for name, method in list(vars(case).items()):
        if name.startswith("assert") and isinstance(method, FunctionType) and method.__name__ == name:
            setattr(case, name, _looking(method, look))


def _looking(method: Callable[..., Any], look: Callable[[Any], None]) -> Callable[..., Any]:
    @functools.wraps(method)
    def assertion(test: Any, *arguments: Any, **named: Any) -> Any:
        look(test)
        return method(test, *arguments, **named)

    return assertion


def hollow_assertions(test: Any) -> List[Any]:
    """The functions among a test's own assertions that find nothing wrong where something is."""
    found = []
    for name, arguments in (("assertEqual", (1, 2)), ("assertTrue", (False,))):
        try:
            getattr(test, name)(*arguments)
        except BaseException:  # as it should
            continue
        found.append(getattr(type(test), name))
    return found
