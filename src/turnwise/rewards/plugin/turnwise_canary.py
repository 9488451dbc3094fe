"""Canaries: tests made to fail. Where one passes, something in the process makes failing tests pass.

They go through the very machinery and hooks that the repository's tests go through, and stay out of pytest's report.
"""

import unittest
from typing import Any, Callable, Iterator, List

import pytest
from _pytest import fixtures, runner


def _assert_false() -> None:
    assert len("canary") == 0


def _equal_by_unittest() -> None:
    unittest.TestCase("run").assertEqual(1, 2)  # noqa: PT009


def _raise_nothing() -> None:
    with pytest.raises(ValueError):  # noqa: PT011
        pass


def _raise_error() -> None:
    raise RuntimeError("canary")


class Canary(pytest.Function):
    """A test that must fail."""

    def repr_failure(self, excinfo: Any, style: Any = None) -> str:
        """Nobody reads why a canary failed, and telling it takes pytest 10 ms."""
        return ""

    def iter_markers_with_node(self, name: Any = None) -> Iterator[Any]:
        """None: a module's mark may skip all of its tests, or expect them to fail."""
        return iter(())


def passing_canaries(item: Any, run: Callable[..., Any] = runner.runtestprotocol) -> List[str]:
    """Run the canaries where `item` lies; the names of those that did not fail."""
    passed = []
    for function in (_assert_false, _equal_by_unittest, _raise_nothing, _raise_error):
        information = fixtures.FuncFixtureInfo((), (), [], {})
        name = "test" + function.__name__
        make = getattr(Canary, "from_parent", Canary)  # before pytest 5.4 there is none
        canary = make(parent=item.parent, name=name, callobj=function, fixtureinfo=information)
        try:
            reports = [report for report in run(canary, log=False, nextitem=None) if report.when == "call"]
        except Exception:  # of a plugin that has not seen the canary collected, or has ended already
            continue
        if reports and reports[0].outcome != "failed":
            passed.append(function.__name__)
    return passed
