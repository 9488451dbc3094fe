"""One patch before the hidden tests of its task, in a fresh sandbox."""

import os
import secrets
import shlex
from collections.abc import Mapping
from dataclasses import dataclass

from turnwise.errors import SandboxError, TaskError
from turnwise.rewards.protect import apply_options, configuration_of
from turnwise.rewards.record import Record
from turnwise.rewards.suite import SupervisedRun, recorded_command, suite_command
from turnwise.sandbox import Sandbox
from turnwise.types import ExecResult, Task

PATCH_PATH, HIDDEN_PATH = "/tmp/turnwise-submitted.diff", "/tmp/turnwise-hidden.diff"
GIT_APPLY = "git -c safe.directory='*' apply --whitespace=nowarn"
_APPLY_TIMEOUT_S = 120.0
_NAMED, _WRITTEN = "/tmp/turnwise-named", "/tmp/turnwise-written"


class PatchDoesNotApply(Exception):
    """Git refuses the patch; the text is its message."""


@dataclass(frozen=True)
class AppliedPatch:
    """What of a patch reached the repository. `files` are the contents that its files have now (None: removed), as git
    itself names them; `left_out` are the files that were kept back because they steer tests."""

    files: Mapping[str, bytes | None]
    left_out: tuple[str, ...]


@dataclass(frozen=True)
class Run:
    """What one run of the hidden tests gave: the supervisor's record, and the command's output."""

    record: Record
    log: str
    applied: AppliedPatch


async def run_hidden_tests(
    task: Task,
    patch: str,
    sandbox: Sandbox,
    timeout_s: float,
    *,
    tests: bytes | None = None,
    explain: bool = False,
) -> Run:
    """Bring the hidden tests into the sandbox's repository, apply the patch, run the tests.

    `tests` is a patch that takes the place of the task's own test patch. `explain`: the record also says why tests
    failed (see `run_suite`), where pytest runs them. Raises PatchDoesNotApply; TaskError where
    the hidden tests do not apply; SandboxError where the sandbox fails or the tests did not even start.

    The secret of the run comes into the sandbox as the first line of the hidden tests' patch, where git passes over it
    as over the text of a commit; the supervisor removes that file before any code of the repository runs.
    """
    secret = secrets.token_hex(16).encode()
    tests = with_newline(task.test_patch).encode() if tests is None else tests
    hidden = configuration_of(task, patch).encode() + tests
    await sandbox.write(HIDDEN_PATH, secret + b"\n" + hidden)
    if hidden.strip():
        done = await _run(sandbox, f"{GIT_APPLY} {HIDDEN_PATH}")
        if done.exit_code:
            reason = f"the task's hidden test patch does not apply to its own repository: {_last_line(done)}"
            raise TaskError(f"{task.instance_id}: {reason}")
    applied = await apply_patch(task, patch, sandbox)
    own = suite_command(task.test_files, explain) if task.test_run is None else recorded_command(task.test_run, explain)
    record, log = await SupervisedRun(secret, HIDDEN_PATH).run(sandbox, own, timeout_s)
    if record.exit_code is None and not record.timed_out:
        raise SandboxError(f"the tests did not start: {(log.strip().splitlines() or ['no message'])[-1]}")
    return Run(record, log, applied)


async def apply_patch(task: Task, patch: str, sandbox: Sandbox) -> AppliedPatch:
    """Apply what of a patch may reach the hidden tests (`apply_options`).

    Git itself says which files it writes: it reads more spellings of a name than a parser of ours would know. Raises
    PatchDoesNotApply, SandboxError.
    """
    await sandbox.write(PATCH_PATH, with_newline(patch).encode())
    options = shlex.join(apply_options(task, patch))
    numstat = f"{GIT_APPLY} --numstat -z"
    steps = [f"{numstat} {PATCH_PATH} >{_NAMED}", f"{numstat} --apply {options} {PATCH_PATH} >{_WRITTEN}"]
    done = await _run(sandbox, " && ".join([*steps, f"rm -f {PATCH_PATH}"]))
    if done.exit_code:
        raise PatchDoesNotApply(f"git does not apply the patch: {_last_line(done)}")
    named, written = [_names(await sandbox.read(path)) for path in (_NAMED, _WRITTEN)]
    files = {name: await _content(sandbox, name) for name in written}
    return AppliedPatch(files, tuple(sorted(set(named) - set(written))))


async def _run(sandbox: Sandbox, command: str) -> ExecResult:
    done = await sandbox.exec(f"({command}) </dev/null", _APPLY_TIMEOUT_S)
    if done.timed_out:
        raise SandboxError(f"git did not apply a patch in {_APPLY_TIMEOUT_S:g} s")
    return done


def _names(numstat: bytes) -> list[str]:
    """The files of `git apply --numstat -z`, both names of a renamed one.

    >>> _names(b"1\\t0\\tcalc.py\\x000\\t0\\t\\x00old.py\\x00new.py\\x00")
    ['calc.py', 'old.py', 'new.py']
    """
    return [os.fsdecode(name) for part in numstat.split(b"\0") if (name := part.rpartition(b"\t")[2])]


async def _content(sandbox: Sandbox, path: str) -> bytes | None:
    try:
        return await sandbox.read(path)
    except FileNotFoundError:
        return None


def _last_line(done: ExecResult) -> str:
    return (done.output.strip().splitlines() or ["no message"])[-1]


def with_newline(text: str) -> str:
    """A patch as git wants it."""
    return text if text.endswith("\n") else text + "\n"
