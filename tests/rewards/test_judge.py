"""From a run to the verdict, where the log and the record do not say the same."""

from dataclasses import replace

import pytest

from turnwise.rewards.grading import Grader
from turnwise.rewards.judge import judge
from turnwise.rewards.record import Record
from turnwise.rewards.trial import Run
from turnwise.types import TestRun, VerdictKind

ADD, DOUBLE = "tests/test_calc.py::test_add", "tests/test_calc.py::test_double"
LOG = f"PASSED {ADD}\nPASSED {DOUBLE}\n"
WHOLE = Record({ADD: "passed", DOUBLE: "passed"}, exit_code=0, finished=True, sealed=True)


@pytest.fixture
def judged(small_world):
    run = TestRun("pytest -rA tests/test_calc.py", "parse_log_pytest")
    task = replace(small_world.task, test_run=run)

    def judged(record: Record, log: str = LOG, left_out: tuple[str, ...] = ()):
        return judge(task, Run(replace(record, log=log), left_out), Grader(task, run))

    return judged


def test_a_log_that_the_record_confirms_is_rewarded(judged):
    assert judged(WHOLE).kind is VerdictKind.RESOLVED


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        (replace(WHOLE, outcomes={ADD: "failed", DOUBLE: "passed"}), f"the log says that {ADD} passed, and pytest"),
        (replace(WHOLE, outcomes={ADD: "passed"}), f"the log says that {DOUBLE} passed, and pytest reported it as mis"),
        (replace(WHOLE, finished=False), "pytest was ended from within (exit code 0), before its end"),
    ],
)
def test_a_log_that_the_record_does_not_confirm_scores_but_is_not_rewarded(judged, record, reason):
    verdict = judged(record)

    assert verdict.kind is VerdictKind.RESOLVED_LOOSELY
    assert verdict.reason.startswith(reason)
    assert (verdict.resolved, verdict.rewarded) == (True, False)


@pytest.mark.parametrize(
    ("record", "kind", "reason"),
    [
        (replace(WHOLE, timed_out=True), VerdictKind.TESTS_TIMED_OUT, "the tests did not end in time"),
        (replace(WHOLE, sealed=False), VerdictKind.UNRESOLVED, "the process that watches the tests was ended"),
        (replace(WHOLE, leftover=2), VerdictKind.UNRESOLVED, "2 processes that the tests left running"),
    ],
)
def test_a_run_whose_record_is_not_valid_counts_for_nothing(judged, record, kind, reason):
    verdict = judged(record)

    assert (verdict.kind, verdict.resolved) == (kind, False)
    assert verdict.reason.startswith(reason)


def test_what_was_left_out_of_the_patch_is_named(judged):
    assert judged(WHOLE, left_out=("conftest.py",)).reason == (
        "left out of the patch, as files that steer tests: conftest.py"
    )
