"""From one run of the hidden tests to the verdict on the patch, with the reason that a reader understands."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from hashlib import blake2b

from turnwise.errors import SandboxError, TaskError
from turnwise.rewards.command import PythonCommand
from turnwise.rewards.grading import Grade, Grader, forged_marker, whole_log
from turnwise.rewards.suite import LOG_CHARS, Record
from turnwise.types import ExecResult, SuiteResult, Task, Verdict, VerdictKind

_UNITTEST = (("-m", "unittest"), ("./tests/runtests.py",), ("tests/runtests.py",))
_UNITTEST_ID = re.compile(r"\w+ \([\w.]+\)")


@dataclass(frozen=True)
class Run:
    """What came out of the sandbox. `record` is None where the tests were never reached.

    `log` is the test command's output as the supervisor kept it, for a row with its own command; `command` is that
    command where it is a Python program, so that the record holds what outcomes pytest or unittest told.
    """

    done: ExecResult
    record: Record | None
    log: bytes | None
    command: PythonCommand | None
    hidden_refused: bool = False
    patch_refused: bool = False

    @property
    def text(self) -> str:
        """What the tests printed."""
        return self.done.output if self.log is None else self.log.decode(errors="replace")


@dataclass(frozen=True)
class _Finding:
    """A verdict's kind and reason, and the outcomes that it stands on."""

    kind: VerdictKind
    reason: str
    outcomes: Mapping[str, str]


def judge(task: Task, run: Run, grader: Grader | None) -> Verdict:
    """The verdict on the patch whose run this is, without its duration; `grader` for a row graded by its log.

    Raises TaskError where the row's own hidden tests do not fit its repository.
    """
    text = run.text
    unreached = _not_reached(run, grader)
    if unreached is not None and run.hidden_refused:
        raise TaskError(f"{task.instance_id}: {unreached.reason}")
    finding = unreached or (_by_record(task, run) if grader is None else _by_log(task, run, grader, text))
    return Verdict(
        finding.kind,
        {test_id: finding.outcomes[test_id] for test_id in task.fail_to_pass if test_id in finding.outcomes},
        {test_id: finding.outcomes[test_id] for test_id in task.pass_to_pass if test_id in finding.outcomes},
        text[-LOG_CHARS:],
        reason=finding.reason,
    )


def require_ended(run: Run) -> SuiteResult:
    """The outcomes of a run by our own runner that came to its end and that nothing spoiled.

    Raises TaskError with the reason for any other, SandboxError where the tests did not even start.
    """
    unreached = _not_reached(run, None)
    if unreached is not None:
        raise (TaskError if run.patch_refused or run.hidden_refused else SandboxError)(unreached.reason)
    spoiled = _spoiled(run, finishes=True)
    if spoiled is not None:
        raise TaskError(f"{spoiled[0]}: {spoiled[1]}")
    assert run.record is not None
    log, done = run.text[-LOG_CHARS:], run.done
    return replace(run.record.suite, log=log, exit_code=done.exit_code, duration_s=done.duration_s)


def _not_reached(run: Run, grader: Grader | None) -> _Finding | None:
    """What is to say of a run that never came to the tests: the submitted code cannot do that to our own runner."""
    record = run.record
    if run.done.timed_out or (record is not None and (record.started or not record.sealed or grader is not None)):
        return None
    last = (run.done.output.strip().splitlines() or ["no message"])[-1]
    if run.patch_refused:
        return _Finding(VerdictKind.PATCH_DOES_NOT_APPLY, f"git does not apply the patch: {last}", {})
    if run.hidden_refused:
        reason = f"the task's hidden test patch does not apply to its own repository: {last}"
        return _Finding(VerdictKind.INFRASTRUCTURE_FAILURE, reason, {})
    return _Finding(VerdictKind.INFRASTRUCTURE_FAILURE, f"the tests did not start: {last}", {})


def _by_record(task: Task, run: Run) -> _Finding:
    """The verdict of our own runner.

    What the submitted code does to the exit code decides nothing: the supervisor makes the record before any code of
    the repository runs, and closes it after all of that has ended.
    """
    suite = SuiteResult({}, 0, "", False, 0.0) if run.record is None else run.record.suite
    fail_to_pass, pass_to_pass = _outcomes(task.fail_to_pass, suite), _outcomes(task.pass_to_pass, suite)
    outcomes = {**pass_to_pass, **fail_to_pass}
    spoiled = _spoiled(run, finishes=True)
    if spoiled is not None:
        return _Finding(*spoiled, outcomes)
    failing = {test_id: word for test_id, word in fail_to_pass.items() if word != "passed"}
    broken = {test_id: word for test_id, word in pass_to_pass.items() if word not in ("passed", "skipped")}
    return _Finding(*_word(task, failing, broken), outcomes)


def _by_log(task: Task, run: Run, grader: Grader, text: str) -> _Finding:
    """swebench's verdict on the log, where nothing that the supervisor saw denies it."""
    code = _shell_code(None if run.record is None else run.record.exit_code)
    grade = grader.of_log(whole_log(text, code))
    spoiled = _spoiled(run, finishes=False) or _denied(run, grader, grade, text)
    if spoiled is not None:
        return _Finding(*spoiled, grade.outcomes)
    if not grade.found:
        reason = f"swebench finds no sound test output in the log (exit code {code})"
        return _Finding(VerdictKind.UNRESOLVED, reason, grade.outcomes)
    lacking = {test_id: word for test_id, word in grade.outcomes.items() if test_id not in grade.satisfied}
    failing = {test_id: lacking[test_id] for test_id in task.fail_to_pass if test_id in lacking}
    broken = {test_id: lacking[test_id] for test_id in task.pass_to_pass if test_id in lacking}
    return _Finding(*_word(task, failing, broken), grade.outcomes)


def _spoiled(run: Run, finishes: bool) -> tuple[VerdictKind, str] | None:
    """Why the record counts for nothing, if so. `finishes`: our runner tells when it has come to its end."""
    record = run.record
    if run.done.timed_out or record is None:
        return VerdictKind.TESTS_TIMED_OUT, "the tests did not end in time"
    if record.alarms:
        return VerdictKind.TAMPERING, "; ".join(record.alarms[:3])
    if not record.sealed:
        how = f"exit code {run.done.exit_code}"
        return VerdictKind.UNRESOLVED, f"the process that watches the tests was ended before its time ({how})"
    if not finishes and blake2b(run.log or b"", digest_size=16).hexdigest() != record.log_digest:
        return VerdictKind.TAMPERING, "the log is not what the tests printed: it was changed afterwards"
    if not record.finished and (finishes or run.command is not None):
        code = _shell_code(record.exit_code)
        return VerdictKind.UNRESOLVED, f"the test process was ended from within (exit code {code}) before its end"
    return None


def _denied(run: Run, grader: Grader, grade: Grade, text: str) -> tuple[VerdictKind, str] | None:
    """Where the log claims more than the structured outcomes and the exit code allow."""
    assert run.record is not None
    marker = forged_marker(text)
    if marker:
        return VerdictKind.TAMPERING, f"the tests' output holds {marker!r}, which only the harness writes"
    is_pytest = run.command is not None and run.command.is_pytest
    recorded = grader.of_record(run.record, "PASSED {}" if is_pytest else "{} ok" if grader.is_sympys else "{} ... ok")
    for test_id in sorted(grade.satisfied - recorded.satisfied):
        said = recorded.outcomes[test_id]
        if said != "missing" or grader.is_sympys or _in_run(test_id, run.command):
            honest = test_id in run.record.in_sub_tests
            reason = f"the log claims {grade.outcomes[test_id]} for {test_id}, which ended {said}"
            return VerdictKind.UNRESOLVED if honest else VerdictKind.TAMPERING, reason
    twice = set() if is_pytest else grader.contradictions(text) & grade.satisfied
    if twice:
        return VerdictKind.TAMPERING, f"the log says that {min(twice)} passed, and that it failed"
    return None


def _in_run(test_id: str, command: PythonCommand | None) -> bool:
    """Whether an id must be of a test of the command: other ids are of tests that tests run, or no tests at all."""
    if command is None:
        return False
    if not command.is_pytest:
        return command.program in _UNITTEST and _UNITTEST_ID.fullmatch(test_id) is not None
    file, separator, _ = test_id.partition("::")
    places = [word.partition("::")[0].rstrip("/") for word in command.arguments if not word.startswith("-")]
    return bool(separator) and any(file == place or file.startswith(f"{place}/") or place == "." for place in places)


def _word(task: Task, failing: Mapping[str, str], broken: Mapping[str, str]) -> tuple[VerdictKind, str]:
    """SWE-bench's rule: every FAIL_TO_PASS passes; a PASS_TO_PASS may also be skipped."""
    if not task.fail_to_pass:
        return VerdictKind.UNRESOLVED, "the task names no test to be fixed"
    if failing:
        return VerdictKind.UNRESOLVED, _tell(failing, len(task.fail_to_pass), "tests to be fixed do not pass")
    if broken:
        return VerdictKind.UNRESOLVED, _tell(broken, len(task.pass_to_pass), "tests that passed before are broken")
    return VerdictKind.RESOLVED, ""


def _tell(wrong: Mapping[str, str], total: int, what: str) -> str:
    test_id, word = next(iter(wrong.items()))
    return f"{len(wrong)} of {total} {what}: {test_id} {word}" + (", …" if len(wrong) > 1 else "")


def _outcomes(test_ids: Iterable[str], suite: SuiteResult) -> dict[str, str]:
    """An id without an outcome is "error" where its file could not be collected, else "missing"."""
    return {
        test_id: suite.outcomes.get(test_id, "error" if test_id.split("::")[0] in suite.failures else "missing")
        for test_id in test_ids
    }


def _shell_code(exit_code: int | None) -> int:
    """An exit code as a shell tells it: 128 + N for signal N."""
    if exit_code is None:
        return 1
    return exit_code if exit_code >= 0 else 128 - exit_code
