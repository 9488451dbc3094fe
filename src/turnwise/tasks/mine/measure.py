"""From runs of the hidden tests without and with the fix to the tests that decide."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

_FAILING = ("failed", "error", "missing")


@dataclass(frozen=True)
class Measured:
    """The tests that decide, and those that end differently from run to run, which are left out.

    >>> settle_tests([{"t.py::a": "failed"}], [{"t.py::a": "passed"}]).fail_to_pass
    ('t.py::a',)
    """

    fail_to_pass: tuple[str, ...]
    pass_to_pass: tuple[str, ...]
    unsteady: tuple[str, ...]


def settle_tests(before: Sequence[Mapping[str, str]], after: Sequence[Mapping[str, str]]) -> Measured:
    """What the outcomes by test id of some runs without the fix and some with it say, test by test.

    A test that a run does not know of counts as failed in it: its file could not be collected, or its parameters come
    from what is mended.
    """
    ids = sorted({test_id for run in (*before, *after) for test_id in run})
    ends = {test_id: (_ends(test_id, before), _ends(test_id, after)) for test_id in ids}
    unsteady = tuple(test_id for test_id, sides in ends.items() if any(len(side) > 1 for side in sides))
    steady = {test_id: (min(old), min(new)) for test_id, (old, new) in ends.items() if test_id not in unsteady}
    return Measured(
        tuple(test_id for test_id, (old, new) in steady.items() if old in _FAILING and new == "passed"),
        tuple(test_id for test_id, ends in steady.items() if ends == ("passed", "passed")),
        unsteady,
    )


def _ends(test_id: str, runs: Sequence[Mapping[str, str]]) -> set[str]:
    return {run.get(test_id, "missing") for run in runs}
