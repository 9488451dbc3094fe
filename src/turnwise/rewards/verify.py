"""The hidden tests' word on a patch, spoken in a fresh sandbox (DESIGN.md, rule 1)."""

import asyncio
import json
import secrets
import shlex
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace
from hashlib import blake2b

from turnwise.errors import SandboxError
from turnwise.rewards.command import PythonCommand, read_command
from turnwise.rewards.grading import Grader
from turnwise.rewards.judge import Run, judge, require_ended
from turnwise.rewards.protect import apply_options, configuration_of, hidden_files
from turnwise.rewards.restate import restate
from turnwise.rewards.suite import (
    PLUGIN_DIR,
    read_record,
    results_path,
    suite_command,
    supervised_command,
    with_suite,
)
from turnwise.sandbox import Sandbox, SandboxBackend
from turnwise.types import SandboxSpec, SuiteResult, Task, TestRun, Verdict, VerdictKind

PATCH_PATH, HIDDEN_PATH = "/tmp/turnwise-submitted.diff", "/tmp/turnwise-hidden.diff"
HIDDEN_REFUSED, PATCH_REFUSED = 96, 97
CONTROL_PATH = "/tmp/turnwise-control.json"
GIT_APPLY = "git -c safe.directory='*' apply --whitespace=nowarn"


async def verify(task: Task, patch: str, *, backend: SandboxBackend, spec: SandboxSpec, timeout_s: float) -> Verdict:
    """Bring the hidden tests into the task's repository in a fresh sandbox, apply `patch`, run them and grade.

    `spec` is the task's own environment without hidden tests. Whatever the patch does is a verdict, never an
    exception; a sandbox that fails gives INFRASTRUCTURE_FAILURE, which says nothing about the patch. `timeout_s` holds
    for one whole run of the tests. One sandbox, one command; for a patch that would be paid, once more as a control,
    with the tests to be fixed made to fail: they must. A patch that git refuses is tried as swebench's harness does.

    A row with a `test_run` is graded by swebench; raises InputError where that is not installed or lacks the parser.
    """
    if not patch.strip():
        return Verdict(VerdictKind.EMPTY_PATCH, reason="the patch is empty")
    grader = None if task.test_run is None else await asyncio.to_thread(Grader, task, task.test_run)
    started = time.perf_counter()

    async def judged(trial: Trial) -> Verdict:
        async with backend.create(with_suite(spec)) as sandbox:
            run = await trial.run(sandbox, timeout_s)
        return judge(task, run, grader)

    try:
        verdict = await judged(Trial(task, patch))
        if verdict.kind is VerdictKind.PATCH_DOES_NOT_APPLY:
            async with backend.create(spec) as sandbox:
                restated = await restate(sandbox, _with_newline(patch))
            verdict, patch = (await judged(Trial(task, restated)), restated) if restated else (verdict, patch)
        if verdict.resolved:
            verdict = await _controlled(verdict, task, patch, judged)
    except SandboxError as error:
        verdict = Verdict(VerdictKind.INFRASTRUCTURE_FAILURE, log=str(error), reason=f"the sandbox failed: {error}")
    return replace(verdict, duration_s=time.perf_counter() - started)


async def _controlled(
    verdict: Verdict, task: Task, patch: str, judged: Callable[["Trial"], Awaitable[Verdict]]
) -> Verdict:
    """The verdict, or tampering where a test passes with the patch even where it is made to fail, and does fail so with
    the gold patch: some cannot be made to fail (a test that expects its failure, or is not in a hidden file).

    Whatever it is by which a patch makes failing tests pass, it does it here too, for it has not seen the tests. Raises
    SandboxError.
    """
    if not task.patch.strip() or patch == task.patch:
        return verdict
    seed = int(blake2b(patch.encode(), digest_size=4).hexdigest(), 16)  # the same patch has the same verdict
    passed = _passed(await judged(Trial(task, patch, control=seed)))
    if not passed:
        return verdict
    gold = await judged(Trial(task, task.patch, control=seed))
    feigned = set() if gold.kind is VerdictKind.TESTS_TIMED_OUT else passed - _passed(gold)
    if not feigned:
        return verdict
    reason = f"{min(feigned)} passes even where it is made to fail: the patch makes failing tests pass"
    return replace(verdict, kind=VerdictKind.TAMPERING, reason=reason)


def _passed(verdict: Verdict) -> set[str]:
    """The tests to be fixed that passed in a control."""
    if verdict.kind is VerdictKind.INFRASTRUCTURE_FAILURE:
        raise SandboxError(verdict.reason)
    return {test_id for test_id, word in verdict.fail_to_pass.items() if word == "passed"}


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


@dataclass(frozen=True)
class Trial:
    """One patch before the hidden tests of its task: what is written into the sandbox, and the command that runs there.

    `explain`: the record also says why tests failed (see `run_suite`; only where pytest runs them). `control`: the
    tests to be fixed are made to fail (see `turnwise_control`), in the way that this number says.
    `secret` seals the record of the run. It comes into the sandbox as the first line of the hidden tests' patch, where
    git passes over it as over the text of a commit.
    """

    task: Task
    patch: str
    explain: bool = False
    control: int | None = None
    results: str = field(default_factory=results_path)
    secret: bytes = field(default_factory=lambda: secrets.token_hex(16).encode())

    async def run(self, sandbox: Sandbox, timeout_s: float) -> Run:
        """Do it. Raises SandboxError."""
        hidden = configuration_of(self.task, self.patch) + _with_newline(self.task.test_patch)
        await sandbox.write(HIDDEN_PATH, self.secret + b"\n" + hidden.encode())
        await sandbox.write(PATCH_PATH, _with_newline(self.patch).encode())
        if self.control is not None:
            files = sorted(path for path in hidden_files(self.task) if path.endswith(".py"))
            named = {"files": files, "ids": self.task.fail_to_pass, "seed": self.control}
            await sandbox.write(CONTROL_PATH, json.dumps(named).encode())
        done = await sandbox.exec(self.script(hidden), timeout_s)
        record = await _read(sandbox, self.results)
        log = None if self.task.test_run is None else await _read(sandbox, self.results + ".log")
        return Run(
            done,
            record=None if record is None else read_record(record.decode(errors="replace"), self.secret),
            log=log,
            command=self._command,
            hidden_refused=done.exit_code == HIDDEN_REFUSED,
            patch_refused=done.exit_code == PATCH_REFUSED,
        )

    def script(self, hidden: str) -> str:
        """One subshell, because the sandbox's own shell must outlive a refused patch."""
        options = shlex.join(apply_options(self.task, self.patch))
        steps = [f"{GIT_APPLY} {HIDDEN_PATH} || exit {HIDDEN_REFUSED}"] if hidden.strip() else []
        # Git itself says which files it writes: it reads more spellings of a name than a parser of ours would know.
        apply = f"{GIT_APPLY} --numstat -z --apply {options} {PATCH_PATH} >{self._suspects}"
        steps += [f"{apply} || exit {PATCH_REFUSED}", f"rm -f {PATCH_PATH}"]
        if self.control is not None:
            python = shlex.quote("python" if self._command is None else self._command.python[0])
            steps.append(f"{python} -I -S -B {PLUGIN_DIR}/turnwise_control.py {CONTROL_PATH}; rm -f {CONTROL_PATH}")
        return "(\n" + "\n".join([*steps, self._tests()]) + "\n)"

    def _tests(self) -> str:
        command, run = self._command, self.task.test_run
        if run is None:
            files = self.task.test_files
            return suite_command(self.results, files, self.explain, secret=HIDDEN_PATH, suspects=self._suspects)
        head = [self.results, HIDDEN_PATH]
        if command is None:
            return supervised_command([*head, "shell", run.command])
        ours = (f"TURNWISE_FOLDER={command.folder}", *(() if command.here else ("TURNWISE_HERE=",)))
        assignments = (*ours, *command.assignments)
        if command.is_pytest:
            mode = "own-explain" if self.explain else "own"
            words = [*head, "pytest", mode, self._suspects, *command.arguments]
            return supervised_command(words, command.python, assignments)
        words = [*head, "script", self._suspects, run.command, *command.program, *command.arguments]
        return supervised_command(words, command.python, assignments)

    @property
    def _suspects(self) -> str:
        return self.results + ".suspects"

    @property
    def _command(self) -> PythonCommand | None:
        run: TestRun | None = self.task.test_run
        return None if run is None else read_command(run.command)


async def _read(sandbox: Sandbox, path: str) -> bytes | None:
    try:
        return await sandbox.read(path)
    except FileNotFoundError:
        return None


def _with_newline(text: str) -> str:
    return text if text.endswith("\n") else text + "\n"
