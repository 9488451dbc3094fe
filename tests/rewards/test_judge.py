"""From a run to the verdict, where the log and the structured outcomes do not say the same."""

from dataclasses import replace
from hashlib import blake2b

import pytest

from turnwise.rewards.command import read_command
from turnwise.rewards.grading import Grader
from turnwise.rewards.judge import Run, judge
from turnwise.rewards.suite import Record
from turnwise.types import ExecResult, SuiteResult, TestRun, VerdictKind

TEST = "test_add (tests.CalcTest)"
# What unittest prints before Python 3.11 where a sub-test fails and something prints a line.
LOG = f"{TEST} ... said\nok, said the code under test\nFAIL: test_add (tests.CalcTest) (a=2)\nFAILED (failures=1)\n"


def run_of(in_sub_tests: frozenset[str]) -> Run:
    log = LOG.encode()
    suite = SuiteResult({TEST: "failed"}, 0, "", False, 0.0)
    digest = blake2b(log, digest_size=16).hexdigest()
    record = Record(suite, (), 1, True, True, True, digest, {TEST: [TEST]}, in_sub_tests)
    return Run(ExecResult("", 1, 0.1), record, log, read_command("./tests/runtests.py a"))


@pytest.mark.parametrize(
    ("in_sub_tests", "kind"),
    [(frozenset(), VerdictKind.TAMPERING), (frozenset({TEST}), VerdictKind.UNRESOLVED)],
)
def test_a_log_that_claims_a_failed_test_is_forged_unless_sub_tests_failed(small_world, in_sub_tests, kind):
    run = TestRun("./tests/runtests.py a", "parse_log_django")
    task = replace(small_world.task, test_run=run, fail_to_pass=(TEST,), pass_to_pass=())

    verdict = judge(task, run_of(in_sub_tests), Grader(task, run))

    assert verdict.kind is kind
    assert verdict.reason == f"the log claims passed for {TEST}, which ended failed"


@pytest.mark.parametrize(
    ("sealed", "timed_out", "kind", "reason"),
    [
        (True, False, VerdictKind.TAMPERING, "the log is not what the tests printed"),
        (False, False, VerdictKind.UNRESOLVED, "the process that watches the tests was ended before its time"),
        (False, True, VerdictKind.TESTS_TIMED_OUT, "the tests did not end in time"),
    ],
)
def test_why_there_is_no_log_is_told(small_world, sealed, timed_out, kind, reason):
    command = TestRun("./tests/runtests.py a", "parse_log_django")
    task = replace(small_world.task, test_run=command, fail_to_pass=(TEST,), pass_to_pass=())
    run = run_of(frozenset())
    assert run.record is not None
    done = replace(run.done, timed_out=timed_out)

    verdict = judge(
        task, replace(run, done=done, log=None, record=replace(run.record, sealed=sealed)), Grader(task, command)
    )

    assert (verdict.kind, verdict.reason.startswith(reason)) == (kind, True)
