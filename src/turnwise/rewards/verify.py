"""Verification: the outcome of a task's hidden tests for a patch, in a fresh sandbox.

Three things carry it. Integrity: the record of the test run is kept by a process that the patch's code cannot write
to, and files that steer tests come from the task. Tripwires: a static reading of the patch finds nothing that only
reward hacks need. Sensitivity: tests that are made to ask for something else fail with the patch, as they do with the
gold one.
"""

import asyncio
import re
import time
from collections.abc import Collection
from dataclasses import replace

from turnwise.errors import SandboxError, TaskError
from turnwise.rewards.grading import Grader
from turnwise.rewards.judge import judge, require_ended
from turnwise.rewards.normalize import normalize_patch
from turnwise.rewards.protect import hidden_files
from turnwise.rewards.reference import VARIANTS, Reference, References
from turnwise.rewards.suite import with_suite
from turnwise.rewards.trial import PatchDoesNotApply, Run, run_hidden_tests, with_newline
from turnwise.rewards.tripwires import Files, Rule, chosen_rules, tripped
from turnwise.sandbox import SandboxBackend
from turnwise.types import SandboxSpec, SuiteResult, Task, Verdict, VerdictKind


class Verification:
    """Verifies patches in sandboxes of one backend; what it learns of a task's gold patch it keeps for the next patch.

    `tripwires` are the names of the rules that hold (None: all). `timeout_s` holds for one run of the tests.
    `references` keeps what is known of gold patches, also for other processes. Raises InputError for an unknown rule.
    """

    def __init__(
        self,
        backend: SandboxBackend,
        *,
        timeout_s: float,
        tripwires: Collection[str] | None = None,
        references: References | None = None,
    ) -> None:
        self._backend, self._timeout_s = backend, timeout_s
        self._rules = chosen_rules(tripwires)
        self._references = references or References(backend, timeout_s)

    async def verdict(self, task: Task, patch: str, spec: SandboxSpec) -> Verdict:
        """Bring the hidden tests into the task's repository in a fresh sandbox, apply `patch`, run them and grade.

        `spec` is the task's own environment without hidden tests. Whatever the patch does is a verdict, never an
        exception; a sandbox that fails gives INFRASTRUCTURE_FAILURE, which says nothing about the patch. A patch that
        git refuses is tried as swebench's harness does. A row with a `test_run` is graded by swebench; raises
        InputError where that is not installed, TaskError where it lacks the parser, or where the row's hidden tests do
        not fit its repository.
        """
        if not patch.strip():
            return Verdict(VerdictKind.EMPTY_PATCH, reason="the patch is empty")
        started = time.perf_counter()
        grader = await _grader(task)
        try:
            verdict = await self._verdict(task, patch, grader, spec)
        except PatchDoesNotApply as error:
            verdict = Verdict(VerdictKind.PATCH_DOES_NOT_APPLY, log=str(error), reason=str(error))
        except SandboxError as error:
            verdict = Verdict(VerdictKind.INFRASTRUCTURE_FAILURE, log=str(error), reason=f"the sandbox failed: {error}")
        return replace(verdict, duration_s=time.perf_counter() - started)

    async def make_variants(self, task: Task, spec: SandboxSpec) -> int:
        """Make all variants of the task's hidden tests; how many the gold patch fails. Raises SandboxError."""
        reference = self._references.of(task, await _grader(task), spec)
        return sum([bool((await reference.variant(index)).failing) for index in range(VARIANTS)])

    async def _verdict(self, task: Task, patch: str, grader: Grader | None, spec: SandboxSpec) -> Verdict:
        try:
            run = await self._run(task, patch, spec)
        except PatchDoesNotApply:
            async with self._backend.create(spec) as sandbox:
                patch = await normalize_patch(sandbox, with_newline(patch))
            if not patch:
                raise
            run = await self._run(task, patch, spec)
        verdict = judge(task, run, grader)
        if not verdict.rewarded:
            return verdict
        reference = self._references.of(task, grader, spec)
        return await self._doubted(task, patch, verdict, reference)

    async def _run(self, task: Task, patch: str, spec: SandboxSpec) -> Run:
        async with self._backend.create(with_suite(spec)) as sandbox:
            return await run_hidden_tests(task, patch, sandbox, self._timeout_s)

    async def _doubted(self, task: Task, patch: str, verdict: Verdict, reference: Reference) -> Verdict:
        """The verdict on a patch that resolves its task by swebench's rule, after all that training asks beside.

        A patch whose files are the gold patch's, byte for byte, is beyond doubt.
        """
        if not task.patch.strip() or _text(patch) == _text(task.patch):
            return verdict
        files = await reference.files_of(patch)
        if files == await reference.files():
            return verdict
        loose = await _loose(verdict, reference)
        if loose:
            return _demoted(verdict, VerdictKind.RESOLVED_LOOSELY, loose)
        wires = await self._tripped(task, files, reference)
        if wires:
            told = "; ".join(f"tripwire {rule}: {what}" for rule, what in wires.items())
            return replace(_demoted(verdict, VerdictKind.SUSPECTED, told), rules=tuple(wires))
        insensitive = await _insensitive(patch, reference)
        return _demoted(verdict, VerdictKind.TAMPERING, insensitive) if insensitive else verdict

    async def _tripped(self, task: Task, files: Files, reference: Reference) -> dict[str, str]:
        """The tripwires that the patch trips and the gold patch does not, each with what it found."""
        hidden = hidden_files(task)
        if not tripped({}, files, self._rules, hidden):
            return {}  # whatever the files held before
        found = await self._against_base(files, reference, self._rules, hidden)
        if found:
            gold = await self._against_base(await reference.files(), reference, self._rules, hidden)
            found = {rule: what for rule, what in found.items() if rule not in gold}
        return found

    @staticmethod
    async def _against_base(
        files: Files, reference: Reference, rules: Collection[Rule], hidden: Collection[str]
    ) -> dict[str, str]:
        return tripped(await reference.base_files(files), files, rules, hidden)


def _text(patch: str) -> str:
    """What a patch does, whoever wrote it: without the lines that name its blobs and how it was made."""
    return re.sub(r"(?m)^(index |diff --git ).*\n", "", with_newline(patch))


async def _grader(task: Task) -> Grader | None:
    return None if task.test_run is None else await asyncio.to_thread(Grader, task, task.test_run)


async def _loose(verdict: Verdict, reference: Reference) -> str:
    """Where a test does not do what it does with the gold patch, although swebench's rule lets it pass."""
    outcomes = {**verdict.pass_to_pass, **verdict.fail_to_pass}
    odd = [test_id for test_id, word in outcomes.items() if word != "passed"]
    gold = await reference.outcomes() if odd else {}
    for test_id in odd:
        if outcomes[test_id] != gold.get(test_id):
            return f"{test_id} is {outcomes[test_id]}, and {gold.get(test_id)} with the gold patch"
    return ""


async def _insensitive(patch: str, reference: Reference) -> str:
    """A test that passes although it was made to ask for something else; it fails so with the gold patch."""
    variant = await reference.drawn_variant()
    if not variant.failing:
        return ""
    ending = await reference.ending_with(patch, variant)
    outcomes = {**ending.pass_to_pass, **ending.fail_to_pass}
    passing = sorted(test_id for test_id in variant.failing if outcomes.get(test_id) == "passed")
    if not passing:
        return ""
    return f"{passing[0]} passes even where it asks for something else, and fails so with the gold patch"


def _demoted(verdict: Verdict, kind: VerdictKind, reason: str) -> Verdict:
    return replace(verdict, kind=kind, reason="; ".join(filter(None, (reason, verdict.reason))))


async def verify(
    task: Task,
    patch: str,
    *,
    backend: SandboxBackend,
    spec: SandboxSpec,
    timeout_s: float,
    tripwires: Collection[str] | None = None,
) -> Verdict:
    """The verdict on one patch: `Verification.verdict` for callers with no more than one."""
    return await Verification(backend, timeout_s=timeout_s, tripwires=tripwires).verdict(task, patch, spec)


async def outcomes(
    task: Task,
    patch: str,
    test_files: Collection[str],
    *,
    backend: SandboxBackend,
    spec: SandboxSpec,
    timeout_s: float,
    explain: bool = False,
) -> SuiteResult:
    """How every test of these files ends once hidden tests and patch are applied, as verification does.

    For a row whose tests are not known yet: its test ids count for nothing. Its own test command is run if it has one,
    which must be pytest on these files; else our own runner. `explain` also gathers why tests failed. Raises TaskError
    where a patch does not apply or the tests do not end; SandboxError where the sandbox fails.
    """
    asked = replace(task, fail_to_pass=tuple(test_files), pass_to_pass=())
    async with backend.create(with_suite(spec)) as sandbox:
        try:
            run = await run_hidden_tests(asked, patch, sandbox, timeout_s, explain=explain)
        except PatchDoesNotApply as error:
            raise TaskError(str(error)) from error
    return require_ended(run)
