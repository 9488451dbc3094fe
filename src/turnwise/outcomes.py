"""What tests say of code: why one failed, how a suite ended, and the verdict on a patch (floor 0)."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import ClassVar


@dataclass(frozen=True)
class Frame:
    """One step of a failing test's traceback. `file` is relative to the repository's root, or absolute outside it."""

    file: str
    line: int
    function: str
    source: str  # the whole statement at `line`, dedented


@dataclass(frozen=True)
class TestFailure:
    """Why a test failed, in the pieces that a symptom is told with.

    `exception` is the type's name ("AssertionError", "pkg.errors.ParseError"), `message` its text; for a plain
    `assert` that is pytest's explanation ("assert 4 == 3\\n +  where 4 = add(1, 2)"). `statement` is the failing
    statement in the test's own file, `variables` the repr (cut at 200 characters) of the names that it uses, at that
    moment; `frames` go from the test inwards.
    """

    __test__: ClassVar[bool] = False  # keeps pytest from collecting this class by its name

    phase: str  # "collect", "setup", "call" or "teardown"
    exception: str
    message: str
    statement: str = ""
    variables: Mapping[str, str] = field(default_factory=dict)
    frames: tuple[Frame, ...] = ()


@dataclass(frozen=True)
class SuiteResult:
    """What one run of a test suite gave. Outcomes by node id: "passed", "failed", "error" or "skipped".

    An expected failure counts as passed.
    `failures` holds the failed and erring ids, and a file that could not be collected under its path. When `timed_out`
    the outcomes are those of the tests that had finished.
    """

    outcomes: Mapping[str, str]
    exit_code: int
    log: str
    timed_out: bool
    duration_s: float
    failures: Mapping[str, TestFailure] = field(default_factory=dict)


class VerdictKind(StrEnum):
    """How a verification ended. Only `RESOLVED` is rewarded; `INFRASTRUCTURE_FAILURE` says nothing about the patch.

    swebench's rule also accepts the two after it: `RESOLVED_LOOSELY`, where a test did not do what it does with the
    gold patch (one that must pass was skipped, say), and `SUSPECTED`, where a tripwire found the patch at odds with
    honest work. `TAMPERING`: tests that were made to fail pass with it.
    """

    RESOLVED = "resolved"
    RESOLVED_LOOSELY = "resolved_loosely"
    SUSPECTED = "suspected"
    UNRESOLVED = "unresolved"
    EMPTY_PATCH = "empty_patch"
    PATCH_DOES_NOT_APPLY = "patch_does_not_apply"
    TESTS_TIMED_OUT = "tests_timed_out"
    INFRASTRUCTURE_FAILURE = "infrastructure_failure"
    TAMPERING = "tampering"

    @property
    def is_rewarded(self) -> bool:
        """Whether training rewards the patch."""
        return self is VerdictKind.RESOLVED

    @property
    def scores(self) -> bool:
        """Whether evaluation counts the task as resolved: swebench's rule."""
        return self in (VerdictKind.RESOLVED, VerdictKind.RESOLVED_LOOSELY, VerdictKind.SUSPECTED)


@dataclass(frozen=True)
class Verdict:
    """The outcome of the hidden tests for a patch.

    Outcomes by test id: "passed", "xfailed", "failed", "error", "skipped" or "missing". `reason` says in a sentence why
    it is not rewarded, and which files of the patch were left out; `rules` names the tripwires of a suspected patch.
    """

    kind: VerdictKind
    fail_to_pass: Mapping[str, str] = field(default_factory=dict)
    pass_to_pass: Mapping[str, str] = field(default_factory=dict)
    log: str = ""
    duration_s: float = 0.0
    reason: str = ""
    rules: tuple[str, ...] = ()

    @property
    def rewarded(self) -> bool:
        """True where training rewards the patch."""
        return self.kind.is_rewarded

    @property
    def resolved(self) -> bool:
        """True where evaluation counts the task as resolved: swebench's rule."""
        return self.kind.scores
