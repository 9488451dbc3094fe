"""What the supervisor kept of one run of tests: its sealed record, read on the host."""

import ast
import hmac
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any

from pydantic import TypeAdapter, ValidationError

from turnwise.types import TestFailure

_RANK = {"passed": 0, "xfailed": 1, "skipped": 2, "failed": 3, "error": 4}
_FAILURE = TypeAdapter(TestFailure)


@dataclass(frozen=True)
class Record:
    """One run. Outcomes by test id: "passed", "xfailed" (failed as expected), "skipped", "failed" or "error".

    A file that could not be collected has the outcome "error" under its own path. `sealed`: the record is whole, and
    nothing but the supervisor wrote it. `finished`: pytest came to its own end. `exit_code` is the command's (-N for
    signal N), None where the record is not whole. `leftover` counts processes of the tests that could not be ended.

    >>> read_record("('t.py::a', 'call', 'passed', False, False)\\n", b"").outcomes
    {'t.py::a': 'passed'}
    """

    outcomes: Mapping[str, str] = field(default_factory=dict)
    failures: Mapping[str, TestFailure] = field(default_factory=dict)
    exit_code: int | None = None
    timed_out: bool = False
    finished: bool = False
    sealed: bool = False
    leftover: int = 0
    duration_s: float = 0.0
    log_digest: str = ""

    def holds(self, log: bytes) -> bool:
        """Whether `log` is what the command printed, unchanged."""
        return blake2b(log, digest_size=16).hexdigest() == self.log_digest


def read_record(text: str, secret: bytes) -> Record:
    """The record in the supervisor's lines (see turnwise_supervisor.py), sealed with `secret`.

    A line that is no row, such as one cut short by a kill, is passed over: its test counts as missing. What is not
    sealed is read as well, for callers to whom it matters how far a run came.
    """
    body, _, last = text.rstrip("\n").rpartition("\n")
    seal = blake2b(f"{body}\n".encode(), key=secret, digest_size=32).hexdigest()
    sealed = hmac.compare_digest(last.encode(), json.dumps({"seal": seal}).encode())
    rows = [row for line in text.splitlines() if (row := _row(line)) is not None]
    end = next((row for row in reversed(rows) if isinstance(row, dict) and "exit_code" in row), {})
    reports = [row for row in rows if isinstance(row, tuple)]
    return Record(
        outcomes=_outcomes(row for row in reports if len(row) == 5),
        failures=_failures(row for row in reports if len(row) == 3),
        exit_code=end.get("exit_code"),
        timed_out=bool(end.get("timed_out")),
        finished=any(row[0] == "end" for row in reports if len(row) == 2),
        sealed=sealed,
        leftover=end.get("leftover", 0),
        log_digest=end.get("log", ""),
    )


def _row(line: str) -> Any:
    """A line's value: JSON of the supervisor, or a Python literal of `turnwise_pytest`; None where it is neither."""
    try:
        return json.loads(line) if line.startswith("{") else ast.literal_eval(line)
    except (ValueError, SyntaxError, RecursionError, MemoryError):
        return None


def _outcomes(reports: Iterable[tuple[str, str, str, bool, bool]]) -> dict[str, str]:
    """The outcome of each test: the worst of its phases, in its last run where a plugin runs it again."""
    outcomes: dict[str, str] = {}
    for name, phase, outcome, expected, _ in reports:
        word = _outcome(phase, outcome, expected)
        if outcome == "rerun":
            outcomes.pop(name, None)
        elif _RANK[word] >= _RANK.get(outcomes.get(name, "passed"), 0):
            outcomes[name] = word
    return outcomes


def _outcome(phase: str, outcome: str, expected: bool) -> str:
    """A failure outside the test's own call is an error. An unexpected pass that is no failure has passed."""
    if outcome == "skipped":
        return "xfailed" if expected else "skipped"
    if outcome == "failed":
        return "failed" if phase == "call" else "error"
    return "passed"


def _failures(rows: Iterable[tuple[str, str, Any]]) -> dict[str, TestFailure]:
    """The first failure of each test."""
    failures: dict[str, TestFailure] = {}
    for _, name, failure in rows:
        try:
            failures.setdefault(name, _FAILURE.validate_python(failure))
        except ValidationError:  # the code under test can make a row of its own here, where nothing hangs on it
            continue
    return failures
