"""The hidden tests' word on a patch, spoken in a fresh sandbox (DESIGN.md, rule 1)."""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import replace

from turnwise.errors import SandboxError
from turnwise.rewards.control import Control
from turnwise.rewards.grading import Grader
from turnwise.rewards.judge import judge, require_ended
from turnwise.rewards.restate import restate
from turnwise.rewards.suite import with_suite
from turnwise.rewards.trial import Trial, with_newline
from turnwise.sandbox import SandboxBackend
from turnwise.types import SandboxSpec, SuiteResult, Task, Verdict, VerdictKind


async def verify(task: Task, patch: str, *, backend: SandboxBackend, spec: SandboxSpec, timeout_s: float) -> Verdict:
    """Bring the hidden tests into the task's repository in a fresh sandbox, apply `patch`, run them and grade.

    `spec` is the task's own environment without hidden tests. Whatever the patch does is a verdict, never an
    exception; a sandbox that fails gives INFRASTRUCTURE_FAILURE, which says nothing about the patch. `timeout_s` holds
    for one whole run of the tests. One sandbox, one command; for a patch that would be paid, once more as a control,
    with tests made to fail: they must. A patch that git refuses is tried as swebench's harness does.

    A row with a `test_run` is graded by swebench; raises InputError where that is not installed, TaskError where it
    lacks the parser, or where the row's hidden tests do not fit its repository.
    """
    if not patch.strip():
        return Verdict(VerdictKind.EMPTY_PATCH, reason="the patch is empty")
    grader = None if task.test_run is None else await asyncio.to_thread(Grader, task, task.test_run)
    started = time.perf_counter()

    async def judged(patch: str) -> Verdict:
        async with backend.create(with_suite(spec)) as sandbox:
            return judge(task, await Trial(task, patch).run(sandbox, timeout_s), grader)

    try:
        verdict = await judged(patch)
        if verdict.kind is VerdictKind.PATCH_DOES_NOT_APPLY:
            async with backend.create(spec) as sandbox:
                restated = await restate(sandbox, with_newline(patch))
            verdict, patch = (await judged(restated), restated) if restated else (verdict, patch)
        if verdict.resolved:
            finding = await Control(task, grader, backend, spec, timeout_s).finding(patch)
            verdict = verdict if finding is None else replace(verdict, kind=finding[0], reason=finding[1])
    except SandboxError as error:
        verdict = Verdict(VerdictKind.INFRASTRUCTURE_FAILURE, log=str(error), reason=f"the sandbox failed: {error}")
    return replace(verdict, duration_s=time.perf_counter() - started)


async def outcomes(
    task: Task,
    patch: str,
    test_files: Sequence[str],
    *,
    backend: SandboxBackend,
    spec: SandboxSpec,
    timeout_s: float,
    explain: bool = False,
) -> SuiteResult:
    """How every test of these files ends once hidden tests and patch are applied, as `verify` does.

    For a row whose tests are not known yet: its test ids count for nothing. Its own test command is run if it has one,
    which must be pytest on these files; else our own runner. `explain` also gathers why tests failed. Raises TaskError
    where a patch does not apply, the tests do not end, or the patch's code tampers with them; SandboxError where the
    sandbox fails.
    """
    trial = Trial(replace(task, fail_to_pass=tuple(test_files), pass_to_pass=()), patch, explain)
    async with backend.create(with_suite(spec)) as sandbox:
        return require_ended(await trial.run(sandbox, timeout_s))
