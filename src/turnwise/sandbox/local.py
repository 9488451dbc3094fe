"""The default backend: Linux namespaces through bubblewrap, on a copy-on-write overlay. No daemon, no root needed.

A sandbox is one tmpfs of `limits.disk_mb` in a mount namespace of its own (the overlay's upper layer, /tmp and
/dev/shm lie on it), and three processes: bubblewrap, process 1 and the command shell. It dies with its parent.
"""

import asyncio
import itertools
import shlex
from pathlib import Path, PurePosixPath
from types import TracebackType
from typing import Self

from turnwise.errors import SandboxError
from turnwise.sandbox.launch import Launcher
from turnwise.sandbox.outputs import result, shown
from turnwise.sandbox.protocol import SnapshotRef, set_up
from turnwise.sandbox.shell import Ran, Shell
from turnwise.sandbox.snapshot import Snapshot
from turnwise.sandbox.state import Workshop, default_parent
from turnwise.sandbox.view import CONTROL
from turnwise.types import ExecResult, SandboxSpec

_FILE_S = 60.0
_NOT_THERE = 66


class LocalSandbox:
    """One sandbox of `LocalBackend`; see `protocol.Sandbox` for its promises."""

    def __init__(self, backend: "LocalBackend", spec: SandboxSpec, snapshot: Snapshot | None = None) -> None:
        self._backend = backend
        self._spec = spec
        self._snapshot = snapshot
        self._lock = asyncio.Lock()
        self._shell: Shell | None = None

    async def __aenter__(self) -> Self:
        self._shell = await self._backend.start(self._spec, self._snapshot)
        if self._snapshot is None:
            await set_up(self, self._spec.setup)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._shell is not None:
            await self._backend.stop(self._shell)

    async def exec(self, command: str, timeout_s: float) -> ExecResult:
        """See `protocol.Sandbox.exec`."""
        async with self._lock:
            ran = await self._entered().run(_encoded(command), timeout_s, self._spec.limits.output_bytes)
        return _result(ran)

    async def run_apart(self, script: str, timeout_s: float) -> ExecResult:
        """See `protocol.Sandbox.run_apart`."""
        return _result(await self._run_apart(script, timeout_s, self._spec.limits.output_bytes))

    @property
    def directory(self) -> str:
        """See `protocol.Sandbox.directory`."""
        return shown(self._entered().directory)

    async def read(self, path: str) -> bytes:
        """See `protocol.Sandbox.read`."""
        inside = self._inside(path)
        ran = await self._run_apart(f"[ -f {inside} ] || exit {_NOT_THERE}; exec cat -- {inside}", _FILE_S, None)
        if ran.status == _NOT_THERE:
            raise FileNotFoundError(path)
        if ran.status != 0:
            raise SandboxError(f"cannot read {path} in the sandbox: {ran.output[-300:].decode(errors='replace')}")
        return ran.output

    async def write(self, path: str, content: bytes) -> None:
        """See `protocol.Sandbox.write`."""
        inside = self._inside(path)
        parent = shlex.quote(str(PurePosixPath(self._spec.workdir, path).parent))
        copy = f"{{ [ -d {parent} ] || mkdir -p -- {parent}; }} && exec cat {CONTROL}/content >{inside}"
        ran = await self._run_apart(copy, _FILE_S, 1000, content)
        if ran.status != 0:
            raise SandboxError(f"cannot write {path} in the sandbox: {ran.output.decode(errors='replace').strip()}")

    async def snapshot(self) -> SnapshotRef:
        """See `protocol.Sandbox.snapshot`."""
        shell = self._entered()
        async with self._lock:
            return self._backend.keep(await shell.snapshot())

    def fork(self, ref: SnapshotRef) -> "LocalSandbox":
        """See `protocol.Sandbox.fork`."""
        return self._backend.fork(ref)

    def _entered(self) -> Shell:
        if self._shell is None:
            raise SandboxError("the sandbox was not entered")
        return self._shell

    def _inside(self, path: str) -> str:
        return shlex.quote(str(PurePosixPath(self._spec.workdir, path)))

    async def _run_apart(self, script: str, timeout_s: float, limit: int | None, content: bytes | None = None) -> Ran:
        async with self._lock:
            return await self._entered().run_apart(_encoded(script), timeout_s, limit, content)


def _encoded(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


def _result(ran: Ran) -> ExecResult:
    return result(ran.status, (ran.head, ran.tail, ran.left_out), ran.duration_s, ran.timed_out)


class LocalBackend:
    """Sandboxes on this machine; needs bubblewrap and unprivileged user namespaces, or root.

    >>> backend = LocalBackend()
    >>> backend.name, backend.isolates
    ('local', True)
    """

    name = "local"
    isolates = True

    def __init__(self, parent: Path | None = None) -> None:
        """`parent`: where the state folder is made at the first sandbox; shared memory, if it can be."""
        self._parent = parent or default_parent()
        self._workshop: Workshop | None = None
        self._launcher: Launcher | None = None
        self._numbers = itertools.count()
        self._live: set[Shell] = set()
        self._snapshots: dict[str, Snapshot] = {}

    def create(self, spec: SandboxSpec) -> LocalSandbox:
        """See `protocol.SandboxBackend.create`."""
        return LocalSandbox(self, spec)

    def fork(self, ref: SnapshotRef) -> LocalSandbox:
        """A sandbox, not yet entered, that starts from a snapshot of any sandbox of this backend."""
        snapshot = self._snapshots.get(ref.key)
        if snapshot is None:
            raise SandboxError(f"no snapshot {ref.key!r}: it is of another backend, or its backend was closed")
        return LocalSandbox(self, snapshot.spec, snapshot)

    def keep(self, snapshot: Snapshot) -> SnapshotRef:
        """Name a snapshot; it holds good until `close`."""
        ref = SnapshotRef(f"{self.name}-{next(self._numbers)}")
        self._snapshots[ref.key] = snapshot
        return ref

    async def start(self, spec: SandboxSpec, snapshot: Snapshot | None) -> Shell:
        """Start what one sandbox runs in. Raises InputError when this machine cannot, SandboxError when it failed."""
        if self._workshop is not None and not self._workshop.working:
            self._workshop.close()
            self._workshop = None
        if self._workshop is None or self._launcher is None:
            self._workshop, self._launcher = self._prepare()
        shell = Shell(self._launcher, spec, self._workshop.folder / f"sandbox-{next(self._numbers)}")
        await shell.start(snapshot)
        self._live.add(shell)
        return shell

    async def stop(self, shell: Shell) -> None:
        """End one sandbox, if it still lives."""
        if shell in self._live:
            self._live.discard(shell)
            await shell.stop()

    def _prepare(self) -> tuple[Workshop, Launcher]:
        try:
            workshop = Workshop(self._parent)
        except OSError as error:
            raise SandboxError(f"cannot keep sandboxes in {self._parent}: {error}") from error
        try:
            return workshop, Launcher(workshop)
        except OSError as error:
            workshop.close()
            raise SandboxError(f"cannot keep sandboxes in {self._parent}: {error}") from error
        except BaseException:
            workshop.close()
            raise

    async def close(self) -> None:
        """See `protocol.SandboxBackend.close`."""
        await asyncio.gather(*(self.stop(shell) for shell in list(self._live)))
        for snapshot in self._snapshots.values():
            snapshot.close()
        self._snapshots.clear()
        if self._workshop is not None:
            self._workshop.close()
            self._workshop = self._launcher = None
