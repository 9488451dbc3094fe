"""What the supervisor kept of one run of tests: its sealed record, read on the host."""

import ast
import hmac
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any

from pydantic import TypeAdapter, ValidationError

from turnwise.types import TestFailure

_RANK = {"passed": 0, "xfailed": 1, "skipped": 2, "failed": 3, "error": 4}
_FAILURE = TypeAdapter(TestFailure)
_SEAL_BYTES = 64


@dataclass(frozen=True)
class Record:
    """One run. Outcomes by test id: "passed", "xfailed" (failed as expected), "skipped", "failed" or "error".

    A file that could not be collected has the outcome "error" under its own path. `sealed`: the record is whole, and
    nothing but the supervisor wrote it. `finished`: pytest came to its own end. `exit_code` is the command's (-N for
    signal N), None where the record is not whole. `leftover` counts processes of the tests that could not be ended.
    `log` is what the command printed, `contents` are those of the files that the supervisor was to keep.

    >>> row = b"('t.py::a', 'call', 'passed', False, False)\\n"
    >>> read_record(b"%d\\n%b" % (len(row), row), b"").outcomes
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
    log: str = ""
    contents: Sequence[bytes] = ()


def read_record(content: bytes, secret: bytes) -> Record:
    """The record in the supervisor's file (see turnwise_supervisor.py), sealed with `secret`.

    A line that is no row is passed over: its test counts as missing.
    """
    text, seal = content[:-_SEAL_BYTES], content[-_SEAL_BYTES:]
    sealed = hmac.compare_digest(seal, blake2b(text, key=secret, digest_size=32).hexdigest().encode())
    size, _, rest = (text if sealed else content).partition(b"\n")
    lines = int(size) if size.isdigit() and len(size) < 12 else 0
    rows = [row for line in rest[:lines].split(b"\n") if isinstance(row := _row(line), tuple)]
    ran = next((row for row in reversed(rows) if row[:1] == ("ran",) and len(row) == 5), None)
    reports = _Reports([row for row in rows if row is not ran])
    return Record(
        outcomes=reports.outcomes(),
        failures=reports.failures(),
        exit_code=None if ran is None else ran[1],
        timed_out=ran is not None and ran[2],
        finished=any(row[:1] == ("end",) for row in rows),
        sealed=sealed and ran is not None,
        leftover=0 if ran is None else ran[3],
        log=rest[lines:].decode(errors="replace"),
        contents=() if ran is None else ran[4],
    )


def _row(line: bytes) -> Any:
    """The value of a Python literal; None where a line is none."""
    try:
        return ast.literal_eval(line.decode())
    except (ValueError, SyntaxError, RecursionError, MemoryError):
        return None


@dataclass(frozen=True)
class _Reports:
    """What `turnwise_pytest` sent."""

    rows: Sequence[tuple[Any, ...]]

    def outcomes(self) -> dict[str, str]:
        """The outcome of each test: the worst of its phases, in its last run where a plugin runs it again."""
        outcomes: dict[str, str] = {}
        for row in self.rows:
            if len(row) != 5:
                continue
            name, phase, outcome, expected, _ = row
            word = _outcome(phase, outcome, expected)
            if outcome == "rerun":
                outcomes.pop(name, None)
            elif _RANK[word] >= _RANK.get(outcomes.get(name, "passed"), 0):
                outcomes[name] = word
        return outcomes

    def failures(self) -> dict[str, TestFailure]:
        """The first failure of each test."""
        failures: dict[str, TestFailure] = {}
        for row in self.rows:
            try:
                if len(row) == 3 and row[0] == "failure":
                    failures.setdefault(row[1], _FAILURE.validate_python(row[2]))
            except ValidationError:  # the code under test can make a row of its own here, where nothing hangs on it
                continue
        return failures


def _outcome(phase: str, outcome: str, expected: bool) -> str:
    """A failure outside the test's own call is an error. An unexpected pass that is no failure has passed."""
    if outcome == "skipped":
        return "xfailed" if expected else "skipped"
    if outcome == "failed":
        return "failed" if phase == "call" else "error"
    return "passed"
