"""Sandboxes in containers of whatever engine: one implementation of the protocol, over the line to process 1.

An engine (Docker, Kubernetes) only starts containers, gives the stream to their process 1, saves their files and
removes them. All else is the same everywhere and is here: commands, files, snapshots, what lives and what is removed.
"""

import asyncio
import itertools
import tarfile
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from types import TracebackType
from typing import Any, BinaryIO, Protocol, Self, TypeVar

from turnwise.errors import InputError, SandboxError
from turnwise.sandbox.guest import COMMAND, opening
from turnwise.sandbox.line import Answer, Line, Stream
from turnwise.sandbox.outputs import result, shown
from turnwise.sandbox.protocol import SnapshotRef, set_up
from turnwise.sandbox.state import source
from turnwise.types import ExecResult, SandboxSpec

CAPABILITIES = ("CHOWN", "DAC_OVERRIDE", "FOWNER")
"""Enough to change a repository that belongs to somebody else; nothing that reaches past the container."""
ENV = {"TERM": "dumb", "PAGER": "cat", "GIT_PAGER": "cat", "GIT_TERMINAL_PROMPT": "0"}
_T = TypeVar("_T")
_START_S = 120.0
_FILES_S = 600.0
# What a time-out inside may take to be carried out and told.
_GRACE_S = 60.0
_PING_S = 60.0
_SILENCE_S = 1_800.0
_THREADS = 64


class Container(Protocol):
    """One started container; its calls block."""

    @property
    def stream(self) -> Stream: ...

    def cause_of_death(self) -> str:
        """Why it ended, for a message; asked when its stream ended by itself."""
        ...

    def remove(self) -> None:
        """Kill it and remove all of it; returns when it is gone. Raises SandboxError when it cannot be known."""
        ...


class Engine(Protocol):
    """What starts containers; its calls block, and are made from many threads.

    `binds` tells whether it shows a spec's mounts in its containers itself; where it cannot, they are copied. `saves`
    tells whether it can save a container's files; where it cannot, what changed is packed inside and kept here.
    """

    @property
    def binds(self) -> bool: ...

    @property
    def saves(self) -> bool: ...

    def start(self, key: str, spec: SandboxSpec, command: Sequence[str], image: str) -> Container:
        """Start a container that is called by `key`, of `image` (what `save` gave; "": the spec's), with `command` as
        its process 1. What it started, it removes when it fails: InputError for what no retry can help, or
        SandboxError."""
        ...

    def save(self, container: Container) -> str:
        """Keep the container's files as an image, and return what `start` finds it by; "" where it does not save."""
        ...

    def close(self) -> None:
        """Remove everything that was saved, and let go of the engine."""
        ...


@dataclass(frozen=True, eq=False)
class Machine:
    """A live container and the line to it."""

    spec: SandboxSpec
    container: Container
    line: Line

    async def ask(self, do: str, within_s: float, payload: BinaryIO | bytes = b"", **fields: object) -> Answer:
        """See `Line.ask`. Raises SandboxError also for what process 1 could not do."""
        answer = await self.line.ask({"do": do, **fields}, within_s, payload)
        if "error" in answer.fields:
            raise SandboxError(f"the sandbox could not {do}: {answer.fields['error']}")
        return answer


@dataclass(frozen=True)
class Snapshot:
    """What a fork starts from: an image, or an archive of what changed; and the directory and environment that the
    shell was in."""

    spec: SandboxSpec
    image: str
    changes: bytes
    directory: str
    exports: str


class RemoteSandbox:
    """A sandbox in a container; see `protocol.Sandbox` for its promises."""

    def __init__(self, fleet: "Fleet", spec: SandboxSpec, snapshot: Snapshot | None = None) -> None:
        self._fleet = fleet
        self._spec = spec
        self._snapshot = snapshot
        self._lock = asyncio.Lock()
        self._machine: Machine | None = None
        self._directory = spec.workdir if snapshot is None else snapshot.directory

    async def __aenter__(self) -> Self:
        self._machine = await self._fleet.start(self._spec, self._snapshot)
        if self._snapshot is None:
            await set_up(self, self._spec.setup)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._machine is not None:
            await self._fleet.stop(self._machine)

    async def exec(self, command: str, timeout_s: float) -> ExecResult:
        """See `protocol.Sandbox.exec`."""
        answer, ended = await self._run("run", command, timeout_s)
        self._directory = answer.fields["directory"]
        return ended

    async def run_apart(self, script: str, timeout_s: float) -> ExecResult:
        """See `protocol.Sandbox.run_apart`."""
        return (await self._run("run_apart", script, timeout_s))[1]

    async def _run(self, do: str, text: str, timeout_s: float) -> tuple[Answer, ExecResult]:
        content = text.encode("utf-8", "surrogateescape").replace(b"\0", b"")
        limit = self._spec.limits.output_bytes
        answer = await self._ask(do, timeout_s + _GRACE_S, content, timeout_s=timeout_s, limit=limit)
        said, head = answer.fields, answer.fields["head"]
        parts = answer.payload[:head], answer.payload[head:], said["left_out"]
        return answer, result(said["status"], parts, said["duration_s"], said["timed_out"])

    @property
    def directory(self) -> str:
        """See `protocol.Sandbox.directory`."""
        self._entered()
        return shown(self._directory)

    async def read(self, path: str) -> bytes:
        """See `protocol.Sandbox.read`."""
        answer = await self._ask("read", _FILES_S, path=self._inside(path))
        if answer.fields["missing"]:
            raise FileNotFoundError(path)
        return answer.payload

    async def write(self, path: str, content: bytes) -> None:
        """See `protocol.Sandbox.write`."""
        await self._ask("write", _FILES_S, content, path=self._inside(path))

    async def snapshot(self) -> SnapshotRef:
        """See `protocol.Sandbox.snapshot`."""
        machine = self._entered()
        async with self._lock:
            return await self._fleet.snapshot(machine)

    def fork(self, ref: SnapshotRef) -> "RemoteSandbox":
        """See `protocol.Sandbox.fork`."""
        return self._fleet.fork(ref)

    def _entered(self) -> Machine:
        if self._machine is None:
            raise SandboxError("the sandbox was not entered")
        return self._machine

    def _inside(self, path: str) -> str:
        return str(PurePosixPath(self._spec.workdir, path))

    async def _ask(self, do: str, within_s: float, payload: bytes = b"", **fields: Any) -> Answer:
        machine = self._entered()
        async with self._lock:
            return await machine.ask(do, within_s, payload, **fields)


class Fleet:
    """The sandboxes and snapshots of one engine; what a backend is, but for its name."""

    def __init__(self, name: str, make_engine: Callable[[], Engine], ping_s: float = _PING_S) -> None:
        """`make_engine` connects (it blocks), at the first sandbox. Every `ping_s` sandboxes hear that we live."""
        self._name = name
        self._ping_s = ping_s
        self._make_engine = make_engine
        self._engine: Engine | None = None
        self._connecting = asyncio.Lock()
        # Apart, for starts may take half an hour each (of a pod, of a pull), and nothing else shall wait for them.
        self._starters: ThreadPoolExecutor | None = None
        self._threads: ThreadPoolExecutor | None = None
        self._pinging: asyncio.Task[None] | None = None
        self._numbers = itertools.count()
        self._live: set[Machine] = set()
        self._snapshots: dict[str, Snapshot] = {}

    def fork(self, ref: SnapshotRef) -> RemoteSandbox:
        """A sandbox, not yet entered, that starts from a snapshot of any sandbox of this backend."""
        snapshot = self._snapshots.get(ref.key)
        if snapshot is None:
            raise SandboxError(f"no snapshot {ref.key!r}: it is of another backend, or its backend was closed")
        return RemoteSandbox(self, snapshot.spec, snapshot)

    async def start(self, spec: SandboxSpec, snapshot: Snapshot | None) -> Machine:
        """Start one container and its shell. Raises InputError when there can be none, SandboxError when it failed."""
        if not spec.image and not spec.tree.is_dir():
            raise InputError(f"a sandbox needs a directory as its root, and {spec.tree} is none")
        engine = await self._connect()
        machine = await self._start_container(engine, spec, "" if snapshot is None else snapshot.image)
        self._live.add(machine)
        try:
            await machine.line.send(opening(_guest_config(spec)))
            await self._furnish(engine, machine, snapshot)
            await self._begin(machine, snapshot)
        except BaseException:
            await self.stop(machine)
            raise
        return machine

    async def _connect(self) -> Engine:
        async with self._connecting:
            if self._engine is None:
                self._starters = self._starters or ThreadPoolExecutor(_THREADS, "sandbox-start")
                self._threads = self._threads or ThreadPoolExecutor(_THREADS, "sandbox")
                self._engine = await self._call(self._make_engine)
                self._pinging = asyncio.create_task(self._ping())
        return self._engine

    async def _start_container(self, engine: Engine, spec: SandboxSpec, image: str) -> Machine:
        key = str(next(self._numbers))
        assert self._starters is not None
        starting = asyncio.get_running_loop().run_in_executor(self._starters, engine.start, key, spec, COMMAND, image)
        try:
            container = await asyncio.shield(starting)
        except asyncio.CancelledError:
            await asyncio.wait({starting})
            if not starting.cancelled() and starting.exception() is None:
                await self._call(starting.result().remove)
            raise
        return Machine(spec, container, Line(container.stream, container.cause_of_death))

    async def _furnish(self, engine: Engine, machine: Machine, snapshot: Snapshot | None) -> None:
        """Put in what the engine did not: mounts, the root, what changed."""
        if not engine.binds:
            for mount in machine.spec.mounts:
                folder = mount.inside if mount.host.is_dir() else str(PurePosixPath(mount.inside).parent)
                await self._copy(mount.host, machine, folder, PurePosixPath(mount.inside).name)
        if not machine.spec.image and not (snapshot and snapshot.image):
            await self._copy(machine.spec.tree, machine, machine.spec.workdir, "")
        if not engine.saves:
            await machine.ask("mark", _FILES_S)
        if snapshot and snapshot.changes:
            await machine.ask("unpack", _FILES_S, snapshot.changes, path="/")

    async def _copy(self, host: Path, machine: Machine, folder: str, name: str) -> None:
        with await self._call(lambda: pack(host, name)) as archive:
            await machine.ask("unpack", _FILES_S, archive, path=folder)

    async def _begin(self, machine: Machine, snapshot: Snapshot | None) -> None:
        state: dict[str, Any] = {}
        if snapshot is not None:
            state = {"directory": snapshot.directory, "exports": snapshot.exports}
        await machine.ask("begin", _START_S, **state)

    async def snapshot(self, machine: Machine) -> SnapshotRef:
        """Keep a container's files and its shell's state under a new name, which holds good until `close`."""
        machine.line.require_alive()
        assert self._engine is not None
        engine = self._engine
        state = (await machine.ask("remember", _GRACE_S)).fields
        image = await self._call(lambda: engine.save(machine.container))
        changes = b"" if image else (await machine.ask("pack", _FILES_S)).payload
        ref = SnapshotRef(f"{self._name}-{next(self._numbers)}")
        self._snapshots[ref.key] = Snapshot(machine.spec, image, changes, state["directory"], state["exports"])
        return ref

    async def stop(self, machine: Machine) -> None:
        """End one sandbox, if it still lives, and remove its container."""
        machine.line.fail("is not running any more")
        if machine in self._live:
            self._live.discard(machine)
            await self._call(machine.container.remove)

    async def close(self) -> None:
        """See `protocol.SandboxBackend.close`."""
        if self._pinging is not None:
            self._pinging.cancel()
        self._snapshots.clear()
        ended = await asyncio.gather(*(self.stop(machine) for machine in list(self._live)), return_exceptions=True)
        try:
            if self._engine is not None:
                await self._call(self._engine.close)
        finally:
            for threads in filter(None, (self._starters, self._threads)):
                threads.shutdown(wait=False)
            self._engine = self._pinging = self._starters = self._threads = None
        for error in ended:
            if isinstance(error, BaseException):
                raise error

    async def _ping(self) -> None:
        while True:
            await asyncio.sleep(self._ping_s)
            live = list(self._live)
            ended = await asyncio.gather(*(machine.line.ping() for machine in live), return_exceptions=True)
            for machine, error in zip(live, ended, strict=True):
                if error is not None:
                    machine.line.fail(f"cannot be reached: {error}")

    async def _call(self, work: Callable[[], _T]) -> _T:
        assert self._threads is not None
        working = asyncio.get_running_loop().run_in_executor(self._threads, work)
        try:
            return await asyncio.shield(working)
        except asyncio.CancelledError:
            await asyncio.wait({working})
            raise


def _guest_config(spec: SandboxSpec) -> dict[str, object]:
    limits = spec.limits
    return {
        "shell": source("scripts/shell.sh"),
        "loop": source("scripts/loop.sh"),
        "workdir": spec.workdir,
        "processes": limits.processes,
        "data_kb": limits.memory_mb * 1024,
        "file_kb": limits.disk_mb * 1024,
        "silence_s": _SILENCE_S,
    }


def pack(host: Path, name: str) -> BinaryIO:
    """A directory's content, or one file as `name`, as a tar archive in a file without a name; all of it is root's."""

    def disown(member: tarfile.TarInfo) -> tarfile.TarInfo:
        member.uid = member.gid = 0
        member.uname = member.gname = ""
        return member

    file = tempfile.TemporaryFile()  # noqa: SIM115 - whoever gets it closes it
    with tarfile.open(fileobj=file, mode="w") as archive:
        archive.add(host, "." if host.is_dir() else name, filter=disown)
    return file
