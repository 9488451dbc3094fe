"""One patch before the hidden tests of its task, in a fresh sandbox."""

import os
import secrets
import shlex
from dataclasses import dataclass
from typing import NoReturn

from turnwise.errors import SandboxError, TaskError
from turnwise.rewards.protect import apply_options, configuration_of
from turnwise.rewards.record import Record
from turnwise.rewards.suite import Supervised, recorded_command, suite_command
from turnwise.sandbox import Sandbox
from turnwise.types import ExecResult, Task

PATCH_PATH, HIDDEN_PATH = "/tmp/turnwise-submitted.diff", "/tmp/turnwise-hidden.diff"
GIT_APPLY = "git -c safe.directory='*' apply --whitespace=nowarn"
_APPLY_TIMEOUT_S = 120.0
_NAMED, _WRITTEN = "/tmp/turnwise-named", "/tmp/turnwise-written"
_TESTS_REFUSED, _PATCH_REFUSED = 96, 97


class PatchDoesNotApply(Exception):
    """Git refuses the patch; the text is its message."""


@dataclass(frozen=True)
class Run:
    """What one run of the hidden tests gave. `left_out`: files of the patch that steer tests, and so were kept back."""

    record: Record
    left_out: tuple[str, ...] = ()


async def run_hidden_tests(
    task: Task,
    patch: str,
    sandbox: Sandbox,
    timeout_s: float,
    *,
    tests: bytes | None = None,
    explain: bool = False,
) -> Run:
    """Bring the hidden tests into the sandbox's repository, apply the patch, run the tests: in one command, since every
    round trip to a busy sandbox costs more than git does.

    `tests` is a patch that takes the place of the task's own test patch. `explain`: the record also says why tests
    failed (see `run_suite`), where pytest runs them. Raises PatchDoesNotApply; TaskError where the hidden tests do not
    apply; SandboxError where the sandbox fails or the tests did not even start.

    The secret of the run comes into the sandbox as the first line of the hidden tests' patch, where git passes over it
    as over the text of a commit; the supervisor removes that file before any code of the repository runs.
    """
    secret = secrets.token_hex(16).encode()
    tests = with_newline(task.test_patch).encode() if tests is None else tests
    hidden = configuration_of(task, patch).encode() + tests
    await sandbox.write(HIDDEN_PATH, secret + b"\n" + hidden)
    await sandbox.write(PATCH_PATH, with_newline(patch).encode())
    steps = [f"{GIT_APPLY} {HIDDEN_PATH} || exit {_TESTS_REFUSED};"] if hidden.strip() else []
    steps.append(f"{_applying(task, patch)} || exit {_PATCH_REFUSED};")
    own = suite_command(task.test_files, explain) if task.test_run is None else recorded_command(task.test_run, explain)
    done, record = await Supervised(own, timeout_s, secret, HIDDEN_PATH, _NAMED, _WRITTEN).run(sandbox, " ".join(steps))
    if record.exit_code is None and not record.timed_out:
        _raise_unstarted(task, done)
    named, written = map(_names, record.contents or (b"", b""))
    return Run(record, tuple(sorted(set(named) - set(written))))


async def apply_patch(task: Task, patch: str, sandbox: Sandbox) -> dict[str, bytes | None]:
    """Apply what of a patch may reach the hidden tests (`apply_options`); the files that it changes, as they are then.

    None stands for a file that is removed. Raises PatchDoesNotApply, SandboxError.
    """
    await sandbox.write(PATCH_PATH, with_newline(patch).encode())
    done = await sandbox.exec(f"({_applying(task, patch)}) </dev/null", _APPLY_TIMEOUT_S)
    if done.exit_code:
        raise (SandboxError if done.timed_out else PatchDoesNotApply)(f"git does not apply the patch: {_last(done)}")
    return {name: await _content(sandbox, name) for name in _names(await sandbox.read(_WRITTEN))}


def _applying(task: Task, patch: str) -> str:
    """The command that applies a patch and has git itself say which files it names and which it writes: git reads more
    spellings of a name than a parser of ours would know."""
    numstat, options = f"{GIT_APPLY} --numstat -z", shlex.join(apply_options(task, patch))
    apply = f"{numstat} {PATCH_PATH} >{_NAMED} && {numstat} --apply {options} {PATCH_PATH} >{_WRITTEN}"
    return f"{apply} && rm {PATCH_PATH}"


def _raise_unstarted(task: Task, done: ExecResult) -> NoReturn:
    if done.exit_code == _TESTS_REFUSED:
        reason = f"the task's hidden test patch does not apply to its own repository: {_last(done)}"
        raise TaskError(f"{task.instance_id}: {reason}")
    if done.exit_code == _PATCH_REFUSED:
        raise PatchDoesNotApply(f"git does not apply the patch: {_last(done)}")
    raise SandboxError(f"the tests did not start: {_last(done)}")


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


def _last(done: ExecResult) -> str:
    return (done.output.strip().splitlines() or ["no message"])[-1]


def with_newline(text: str) -> str:
    """A patch as git wants it."""
    return text if text.endswith("\n") else text + "\n"
