"""What a sandbox is to the rest of the house: two protocols, on one screen.

    async with backend.create(spec) as sandbox:
        result = await sandbox.exec("python -m pytest -q", timeout_s=60)
        ref = await sandbox.snapshot()
        async with sandbox.fork(ref) as twin:
            ...

A failing command is an `ExecResult`; a dead sandbox is a `SandboxError`. The two are never mixed up.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Protocol, Self

from turnwise.errors import SandboxError
from turnwise.types import ExecResult, SandboxSpec

_SETUP_S = 600.0


@dataclass(frozen=True)
class SnapshotRef:
    """A sandbox's files, working directory and environment at one moment; holds good until its backend is closed.

    >>> SnapshotRef("local-3").key
    'local-3'
    """

    key: str


class Sandbox(Protocol):
    """One isolated machine in small, entered with `async with`: entering starts it, leaving removes all of it."""

    async def __aenter__(self) -> Self: ...

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    async def exec(self, command: str, timeout_s: float) -> ExecResult:
        """Run `command` in the sandbox's one shell: directory, variables and background processes outlive the call.

        Past `timeout_s` the command's processes are killed (earlier background processes are not), the result has
        `timed_out`, exit code 124 and the output so far. Of a long output head and tail are kept. Calls queue. A
        cancelled call ends the sandbox.

        Raises SandboxError when the sandbox is not running or dies under the command.
        """
        ...

    async def run_apart(self, script: str, timeout_s: float) -> ExecResult:
        """Run `script` by /bin/sh in a process of its own, at the workdir.

        Its environment is PATH and LC_ALL=C, its stdin is empty. For what must not depend on what commands did to
        their shell: its options, functions, traps, variables and redirections take no part. Otherwise as `exec`.
        """
        ...

    @property
    def directory(self) -> str:
        """Where the shell was after its last command. Raises SandboxError when the sandbox was not entered."""
        ...

    async def read(self, path: str) -> bytes:
        """A file's content, whatever the shell's state.

        `path` is absolute inside, or relative to the workdir. Links resolve inside the sandbox.

        Raises FileNotFoundError where there is no regular file, SandboxError when the sandbox is dead.
        """
        ...

    async def write(self, path: str, content: bytes) -> None:
        """Create or overwrite a file and the directories it needs; `path` as for `read`.

        Raises SandboxError when the sandbox is dead or the file cannot be written (full disk, read-only place).
        """
        ...

    async def snapshot(self) -> SnapshotRef:
        """Keep the files that changed, the working directory and the environment; processes are not part of it."""
        ...

    def fork(self, ref: SnapshotRef) -> "Sandbox":
        """A new sandbox, not yet entered, that starts where `ref` was taken. Raises SandboxError for an unknown ref."""
        ...


class SandboxBackend(Protocol):
    """Where sandboxes come from.

    `isolates` is False for a backend that only pretends (the fake): promises about processes, limits and views of the
    host hold only where it is True.
    """

    @property
    def name(self) -> str: ...

    @property
    def isolates(self) -> bool: ...

    def create(self, spec: SandboxSpec) -> Sandbox:
        """A sandbox made of `spec`, not yet entered."""
        ...

    async def close(self) -> None:
        """End the sandboxes that still live and remove everything the backend left."""
        ...


async def set_up(sandbox: Sandbox, commands: Sequence[str]) -> None:
    """Run a spec's `setup` in a sandbox just entered.

    Where that fails the sandbox is left again, and SandboxError tells the last line that was printed.
    """
    try:
        for command in commands:
            done = await sandbox.exec(command, _SETUP_S)
            if done.exit_code:
                told = done.output.strip().splitlines() or [f"exit code {done.exit_code}"]
                raise SandboxError(f"the sandbox cannot be set up: {told[-1]}")
    except BaseException as error:
        await sandbox.__aexit__(type(error), error, error.__traceback__)
        raise
