"""The in-memory backend: the protocol without a machine, for tests and demonstrations of what stands on it.

It knows a handful of commands and what its user adds; it isolates nothing and never waits (a command that sleeps past
its time-out is reported as timed out at once).
"""

import asyncio
import itertools
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from types import TracebackType
from typing import Self

from turnwise.errors import SandboxError
from turnwise.sandbox.guest.streams import Kept
from turnwise.sandbox.outputs import result
from turnwise.sandbox.protocol import SnapshotRef, set_up
from turnwise.types import ExecResult, SandboxSpec

_TIMED_OUT, _NOT_FOUND, _MISUSED = 124, 127, 2
_TOKENS = re.compile(r"""\s*(?:(&&|\|\||>>|[;>\n|&<])|((?:'[^']*'|"[^"]*"|\\.|[^\s;&|<>'"\\])+))""")
_PIECES = re.compile(r"""'([^']*)'|"([^"]*)"|\\(.)|([^'"\\]+)""")
_VARIABLE = re.compile(r"\$(\?|\w+)")


@dataclass
class FakeMachine:
    """What a fake command can see and change: absolute paths to contents, the directory, variables, seconds slept."""

    workdir: str
    directory: str
    files: dict[str, bytes] = field(default_factory=dict)
    env: dict[str, str] = field(default_factory=dict)
    slept_s: float = 0.0
    status: int = 0

    def path(self, name: str) -> str:
        """`name` as an absolute path without `.` and `..`, from the current directory."""
        parts: list[str] = []
        for part in PurePosixPath(self.directory, name).parts[1:]:
            parts = parts[:-1] if part == ".." else [*parts, part]
        return "/" + "/".join(parts)

    def is_directory(self, path: str) -> bool:
        """True when there is a file below `path`; directories have no other being here."""
        prefix = path.rstrip("/") + "/"
        return path in ("/", "/tmp", self.workdir) or any(name.startswith(prefix) for name in self.files)

    def copy(self) -> "FakeMachine":
        """A machine in the same state that shares nothing."""
        return replace(self, files=dict(self.files), env=dict(self.env))


class ShellExit(Exception):
    """Raised by a command to end the whole command line with a status, as `exit` does, and an output."""

    def __init__(self, status: int, output: str = "") -> None:
        super().__init__(status)
        self.status = status
        self.output = output


FakeCommand = Callable[[FakeMachine, list[str]], tuple[str, int]]
"""A command: gets the machine and its arguments (its name is not among them), returns output and exit code."""


def _cd(machine: FakeMachine, arguments: list[str]) -> tuple[str, int]:
    target = machine.path(arguments[0] if arguments else machine.workdir)
    if not machine.is_directory(target):
        return f"bash: line 1: cd: {arguments[0]}: No such file or directory\n", 1
    machine.directory = target
    return "", 0


def _cat(machine: FakeMachine, arguments: list[str]) -> tuple[str, int]:
    output, status = "", 0
    for name in arguments:
        content = machine.files.get(machine.path(name))
        status = status if content is not None else 1
        output += f"cat: {name}: No such file or directory\n" if content is None else content.decode(errors="replace")
    return output, status


def _export(machine: FakeMachine, arguments: list[str]) -> tuple[str, int]:
    for argument in arguments:
        name, _, value = argument.partition("=")
        machine.env[name] = value
    return "", 0


def _rm(machine: FakeMachine, arguments: list[str]) -> tuple[str, int]:
    for name in (machine.path(argument) for argument in arguments if not argument.startswith("-")):
        for path in [path for path in machine.files if path == name or path.startswith(f"{name}/")]:
            del machine.files[path]
    return "", 0


def _ls(machine: FakeMachine, arguments: list[str]) -> tuple[str, int]:
    prefix = machine.path(arguments[0] if arguments else ".").rstrip("/") + "/"
    names = {path.removeprefix(prefix).split("/")[0] for path in machine.files if path.startswith(prefix)}
    return "".join(f"{name}\n" for name in sorted(names)), 0


def _sleep(machine: FakeMachine, arguments: list[str]) -> tuple[str, int]:
    machine.slept_s += float(arguments[0])
    return "", 0


def _exit(machine: FakeMachine, arguments: list[str]) -> tuple[str, int]:
    raise ShellExit(int(arguments[0]) if arguments else machine.status)


_COMMANDS: Mapping[str, FakeCommand] = {
    "cat": _cat,
    "cd": _cd,
    "echo": lambda machine, arguments: (" ".join(arguments) + "\n", 0),
    "exit": _exit,
    "export": _export,
    "false": lambda machine, arguments: ("", 1),
    "ls": _ls,
    "pwd": lambda machine, arguments: (machine.directory + "\n", 0),
    "rm": _rm,
    "sleep": _sleep,
    "true": lambda machine, arguments: ("", 0),
}


def _expand(word: str, machine: FakeMachine) -> str:
    def value(match: re.Match[str]) -> str:
        return str(machine.status) if match[1] == "?" else machine.env.get(match[1], "")

    pieces = []
    for literal, quoted, escaped, plain in _PIECES.findall(word):
        pieces.append(literal + escaped + _VARIABLE.sub(value, quoted + plain))
    return "".join(pieces)


def _statements(line: str) -> list[tuple[str, list[str]]]:
    """Words grouped with the operator that stands before them: [(";", ["cd", "a"]), ("&&", ["ls"])]."""
    found: list[tuple[str, list[str]]] = [(";", [])]
    for operator, word in _TOKENS.findall(line):
        if operator in (";", "&&", "||", "\n"):
            found.append((operator, []))
        else:
            found[-1][1].append(operator or word)
    return found


class FakeSandbox:
    """One pretended sandbox. `machine` is there for tests to look at; `die` makes it fail like a dead one."""

    def __init__(self, backend: "FakeBackend", spec: SandboxSpec, machine: FakeMachine) -> None:
        self.machine = machine
        self._backend = backend
        self._spec = spec
        self._alive = False

    async def __aenter__(self) -> Self:
        self._alive = True
        await set_up(self, self._spec.setup)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.die()

    def die(self) -> None:
        """From now on every call raises SandboxError."""
        self._alive = False

    async def exec(self, command: str, timeout_s: float) -> ExecResult:
        """See `protocol.Sandbox.exec`; the grammar is words, quotes, `$NAME`, `;`, `&&`, `||`, `>` and `>>`."""
        self._require_alive()
        await asyncio.sleep(0)
        before_s = self.machine.slept_s
        output, status, timed_out = self._line(command, before_s + timeout_s)
        kept = Kept(self._spec.limits.output_bytes)
        kept.add(output.encode())
        return result(status, kept.parts(), min(self.machine.slept_s - before_s, timeout_s), timed_out)

    async def run_apart(self, script: str, timeout_s: float) -> ExecResult:
        """See `protocol.Sandbox.run_apart`; the grammar is that of `exec`."""
        directory, env = self.machine.directory, dict(self.machine.env)
        self.machine.directory = self.machine.workdir
        try:
            return await self.exec(script, timeout_s)
        finally:
            self.machine.directory, self.machine.env = directory, env

    @property
    def directory(self) -> str:
        """See `protocol.Sandbox.directory`."""
        return self.machine.directory

    def _line(self, command: str, deadline_s: float) -> tuple[str, int, bool]:
        machine, output = self.machine, ""
        for operator, words in _statements(command):
            if not words or (operator == "&&" and machine.status != 0) or (operator == "||" and machine.status == 0):
                continue
            try:
                text, machine.status = self._statement([_expand(word, machine) for word in words])
            except ShellExit as request:
                machine.status = request.status
                output += request.output
                break
            output += text
            if machine.slept_s > deadline_s:
                return output, _TIMED_OUT, True
        return output, machine.status, False

    def _statement(self, words: list[str]) -> tuple[str, int]:
        words, operator, target = self._redirection(words)
        command = self._backend.commands.get(words[0])
        if command is None:
            return f"bash: line 1: {words[0]}: command not found\n", _NOT_FOUND
        output, status = command(self.machine, words[1:])
        if not operator:
            return output, status
        path = self.machine.path(target)
        kept = self.machine.files.get(path, b"") if operator == ">>" else b""
        self.machine.files[path] = kept + output.encode()
        return "", status

    def _redirection(self, words: list[str]) -> tuple[list[str], str, str]:
        for operator in (">", ">>"):
            if operator in words[:-1]:
                at = words.index(operator)
                return words[:at] + words[at + 2 :], operator, words[at + 1]
        return words, "", ""

    async def read(self, path: str) -> bytes:
        """See `protocol.Sandbox.read`."""
        self._require_alive()
        content = self.machine.files.get(str(PurePosixPath(self._spec.workdir, path)))
        if content is None:
            raise FileNotFoundError(path)
        return content

    async def write(self, path: str, content: bytes) -> None:
        """See `protocol.Sandbox.write`."""
        self._require_alive()
        self.machine.files[str(PurePosixPath(self._spec.workdir, path))] = content

    async def snapshot(self) -> SnapshotRef:
        """See `protocol.Sandbox.snapshot`."""
        self._require_alive()
        return self._backend.keep(self._spec, self.machine.copy())

    def fork(self, ref: SnapshotRef) -> "FakeSandbox":
        """See `protocol.Sandbox.fork`."""
        return self._backend.fork(ref)

    def _require_alive(self) -> None:
        if not self._alive:
            raise SandboxError("the sandbox is not running")


class FakeBackend:
    """Pretended sandboxes; `commands` adds to (and overrides) what they can run.

    >>> backend = FakeBackend({"pytest": lambda machine, arguments: ("2 passed\\n", 0)})
    >>> backend.name, backend.isolates
    ('fake', False)
    """

    name = "fake"
    isolates = False

    def __init__(self, commands: Mapping[str, FakeCommand] | None = None) -> None:
        self.commands: Mapping[str, FakeCommand] = {**_COMMANDS, **(commands or {})}
        self._numbers = itertools.count()
        self._snapshots: dict[str, tuple[SandboxSpec, FakeMachine]] = {}
        self._made: list[FakeSandbox] = []

    def create(self, spec: SandboxSpec) -> FakeSandbox:
        """See `protocol.SandboxBackend.create`; the root's files are read into memory."""
        machine = FakeMachine(spec.workdir, spec.workdir, env=dict(spec.env))
        for inside, host in [(spec.workdir, spec.tree), *((mount.inside, mount.host) for mount in spec.mounts)]:
            for path in [host] if host.is_file() else Path(host).rglob("*"):
                if path.is_file():
                    machine.files[str(PurePosixPath(inside, path.relative_to(host)))] = path.read_bytes()
        return self._sandbox(spec, machine)

    def keep(self, spec: SandboxSpec, machine: FakeMachine) -> SnapshotRef:
        """Name a snapshot."""
        ref = SnapshotRef(f"{self.name}-{next(self._numbers)}")
        self._snapshots[ref.key] = spec, machine
        return ref

    def fork(self, ref: SnapshotRef) -> FakeSandbox:
        """A sandbox, not yet entered, that starts from a snapshot of any sandbox of this backend."""
        if ref.key not in self._snapshots:
            raise SandboxError(f"no snapshot {ref.key!r}: it is of another backend, or its backend was closed")
        spec, machine = self._snapshots[ref.key]
        return self._sandbox(replace(spec, setup=()), machine.copy())

    def _sandbox(self, spec: SandboxSpec, machine: FakeMachine) -> FakeSandbox:
        sandbox = FakeSandbox(self, spec, machine)
        self._made.append(sandbox)
        return sandbox

    async def close(self) -> None:
        """See `protocol.SandboxBackend.close`."""
        for sandbox in self._made:
            sandbox.die()
        self._snapshots.clear()
