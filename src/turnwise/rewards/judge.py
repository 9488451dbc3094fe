"""From one run of the hidden tests to the verdict on the patch: swebench's rule, and the stricter one of training."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from turnwise.errors import TaskError
from turnwise.rewards.command import PytestCall, find_pytest
from turnwise.rewards.grading import Grader, whole_log
from turnwise.rewards.record import Record
from turnwise.rewards.suite import LOG_CHARS, suite_result
from turnwise.rewards.trial import Run
from turnwise.types import SuiteResult, Task, Verdict, VerdictKind

_TEST_ID = re.compile(r"[^:\s]+\.py::")


@dataclass(frozen=True)
class _Judged:
    kind: VerdictKind
    reason: str = ""


def judge(task: Task, run: Run, grader: Grader | None) -> Verdict:
    """The verdict on the patch whose run this is, without its duration; `grader` for a row graded by its log.

    The rule is swebench's: every FAIL_TO_PASS passes, a PASS_TO_PASS may also be skipped, an expected failure is a
    pass. Where our record does not confirm what the log says, the patch is resolved loosely.
    """
    outcomes, judged = _by_record(task, run.record) if grader is None else _by_log(task, run, grader)
    spoiled = _invalid_record(run)
    judged = spoiled or judged
    left_out = ", ".join(run.left_out[:5]) + (", …" if len(run.left_out) > 5 else "")
    notes = [judged.reason, f"left out of the patch, as files that steer tests: {left_out}" if left_out else ""]
    return Verdict(
        judged.kind,
        {test_id: outcomes[test_id] for test_id in task.fail_to_pass},
        {test_id: outcomes[test_id] for test_id in task.pass_to_pass},
        run.record.log[-LOG_CHARS:],
        reason="; ".join(filter(None, notes)),
    )


def require_ended(run: Run) -> SuiteResult:
    """The outcomes of a run of pytest that came to its end, valid and whole. Raises TaskError with the reason else."""
    spoiled = _invalid_record(run)
    if spoiled is None and not run.record.finished:
        spoiled = _Judged(VerdictKind.UNRESOLVED, "pytest was ended before its end")
    if spoiled is not None:
        raise TaskError(f"{spoiled.kind}: {spoiled.reason}")
    return suite_result(run.record)


def _invalid_record(run: Run) -> _Judged | None:
    record = run.record
    if record.timed_out:
        return _Judged(VerdictKind.TESTS_TIMED_OUT, "the tests did not end in time")
    if not record.sealed:
        return _Judged(
            VerdictKind.UNRESOLVED, "the process that watches the tests was ended, or its record was changed"
        )
    if record.leftover:
        reason = f"{record.leftover} processes that the tests left running could not be ended"
        return _Judged(VerdictKind.UNRESOLVED, reason)
    return None


def _by_record(task: Task, record: Record) -> tuple[Mapping[str, str], _Judged]:
    """By our own runner's record. An id without an outcome is "error" where its file could not be collected."""
    outcomes = {
        test_id: record.outcomes.get(test_id, "error" if test_id.split("::")[0] in record.outcomes else "missing")
        for test_id in task.fail_to_pass + task.pass_to_pass
    }
    judged = _resolution(task, outcomes)
    if judged.kind is VerdictKind.RESOLVED and not record.finished:
        judged = _Judged(VerdictKind.UNRESOLVED, "the test process was ended from within, before its end")
    return outcomes, judged


def _by_log(task: Task, run: Run, grader: Grader) -> tuple[Mapping[str, str], _Judged]:
    """swebench's verdict on the log, and what our record says of the tests that it accepts."""
    code = _shell_code(run.record.exit_code)
    grade = grader.of_log(whole_log(run.record.log, code))
    if not grade.found:
        reason = f"swebench finds no sound test output in the log (exit code {code})"
        return grade.outcomes, _Judged(VerdictKind.UNRESOLVED, reason)
    if not grade.resolved:
        lacking = {test_id: word for test_id, word in grade.outcomes.items() if test_id not in grade.satisfied}
        reason = _resolution(task, lacking).reason or "swebench does not count it as resolved"
        return grade.outcomes, _Judged(VerdictKind.UNRESOLVED, reason)
    assert task.test_run is not None
    doubt = _unconfirmed(run.record, grader, find_pytest(task.test_run.command))
    if doubt:
        return grade.outcomes, _Judged(VerdictKind.RESOLVED_LOOSELY, doubt)
    return grade.outcomes, _Judged(VerdictKind.RESOLVED)


def _unconfirmed(record: Record, grader: Grader, call: PytestCall | None) -> str:
    """What the log claims and our record of the same run does not confirm; nothing is recorded of other programs."""
    if call is None:
        return ""
    if not record.finished:
        return f"pytest was ended from within (exit code {_shell_code(record.exit_code)}), before its end"
    recorded = grader.of_record(record)
    for test_id, word in recorded.outcomes.items():
        if test_id not in recorded.satisfied and (word != "missing" or _is_of_run(test_id, call)):
            return f"the log says that {test_id} passed, and pytest reported it as {word}"
    return ""


def _is_of_run(test_id: str, call: PytestCall) -> bool:
    """Whether an id must be of a test of the command: some rows have ids of tests that tests run."""
    file = test_id.partition("::")[0]
    places = [word.partition("::")[0].rstrip("/") for word in call.arguments if not word.startswith("-")]
    named = any(file == place or file.startswith(f"{place}/") or place == "." for place in places)
    return _TEST_ID.match(test_id) is not None and named


def _resolution(task: Task, outcomes: Mapping[str, str]) -> _Judged:
    """SWE-bench's rule on outcomes by id; an id that is not there is satisfied."""
    failing = {id_: outcomes[id_] for id_ in task.fail_to_pass if outcomes.get(id_, "passed") not in _PASSES}
    broken = {
        id_: outcomes[id_] for id_ in task.pass_to_pass if outcomes.get(id_, "passed") not in (*_PASSES, "skipped")
    }
    if not task.fail_to_pass:
        return _Judged(VerdictKind.UNRESOLVED, "the task names no test to be fixed")
    if failing:
        reason = _describe_failures(failing, len(task.fail_to_pass), "tests to be fixed do not pass")
        return _Judged(VerdictKind.UNRESOLVED, reason)
    if broken:
        reason = _describe_failures(broken, len(task.pass_to_pass), "tests that passed before are broken")
        return _Judged(VerdictKind.UNRESOLVED, reason)
    return _Judged(VerdictKind.RESOLVED)


_PASSES = ("passed", "xfailed")


def _describe_failures(wrong: Mapping[str, str], total: int, what: str) -> str:
    test_id, word = next(iter(wrong.items()))
    return f"{len(wrong)} of {total} {what}: {test_id} {word}" + (", …" if len(wrong) > 1 else "")


def _shell_code(exit_code: int | None) -> int:
    """An exit code as a shell reports it: 128 + N for signal N."""
    if exit_code is None:
        return 1
    return exit_code if exit_code >= 0 else 128 - exit_code
