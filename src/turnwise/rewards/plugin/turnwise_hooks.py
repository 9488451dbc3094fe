"""Who is hooked into pytest. Runs inside the sandbox, in the tests' own process."""

from typing import Any, FrozenSet, Iterable, Iterator, Tuple

from turnwise_fingerprint import PACKAGES

CALLING = frozenset(("pytest_runtest_setup", "pytest_runtest_call", "pytest_pyfunc_call"))
REPLACED = "_pytest.doctest"  # plugins take it out to put their own in its place


def implementations(pluginmanager: Any) -> Iterator[Tuple[str, Any]]:
    """The name of each hook of pytest with each of its implementations, as pluggy has them."""
    for name, caller in list(vars(pluginmanager.hook).items()) if pluginmanager is not None else ():
        if name.startswith("pytest_"):
            for implementation in caller.get_hookimpls():
                yield name, implementation


def callers_in(hooks: Iterable[Tuple[str, Any]]) -> Iterator[str]:
    """The files of plugins, beside pytest's own, that have a hand in how a test's function is called."""
    for name, function in hooks:
        code = getattr(getattr(function, "__func__", function), "__code__", None)
        if name in CALLING and code is not None and not _is_own(function):
            yield code.co_filename


def lacks_own(hooks: FrozenSet[Any], pluginmanager: Any) -> bool:
    """Whether one of these functions that is pytest's own is hooked into nothing any more."""
    now = {implementation.function for _, implementation in implementations(pluginmanager)}
    return any(_is_own(function) and function.__module__ != REPLACED for function in hooks - now)


def _is_own(function: Any) -> bool:
    return (str(getattr(function, "__module__", "")) + ".").startswith(PACKAGES)
