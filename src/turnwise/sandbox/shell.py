"""The command shell of a live sandbox, driven from the host: start, run commands one at a time, stop."""

import asyncio
import contextlib
import os
import secrets
import shlex
import shutil
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from turnwise.errors import SandboxError
from turnwise.sandbox import processes
from turnwise.sandbox.channel import Channel, Reply
from turnwise.sandbox.launch import Launcher, start_error
from turnwise.sandbox.snapshot import Snapshot, archive
from turnwise.sandbox.view import ground
from turnwise.sandbox.watchdog import Watchdog
from turnwise.types import SandboxSpec

_START_S = 60.0
_SETTLE_S = 0.25
_DEATH_S = 10.0
_KILLS = 50


@dataclass(frozen=True)
class Ran:
    """What became of one command: `status` as the shell tells it (128 + N for signal N)."""

    status: int
    head: bytes
    tail: bytes
    left_out: int  # bytes between them
    duration_s: float
    timed_out: bool

    @property
    def output(self) -> bytes:
        """All that was kept."""
        return self.head + self.tail


class Shell:
    """One sandbox's shell. What ends it (`exit`, `exec`, `set -e`, a time-out) does not end the sandbox: the next
    command finds a new one, in the same directory and environment; variables not exported and functions are gone."""

    def __init__(self, launcher: Launcher, spec: SandboxSpec, control: Path) -> None:
        self._launcher = launcher
        self._spec = spec
        self._control = control
        self._failure: str | None = "is not running"
        self._ended = asyncio.Event()
        self._reply: asyncio.Future[Reply] | None = None
        self._state = Reply("done", 0, spec.workdir, "")
        self._shell_pid = 0
        self._shell_fd = -1
        self._key = ""
        self._watching: asyncio.Task[None] | None = None

    async def start(self, snapshot: Snapshot | None = None) -> None:
        """Start the sandbox, fresh or from a snapshot.

        Raises InputError when the spec or the machine cannot have one, SandboxError when it failed for once.
        """
        self._launcher.check(self._spec)
        await self._launch(None if snapshot is None else snapshot.archive_fd)
        try:
            self._adopt(await self._first_reply())
            self._watchdog = Watchdog(self._init_pid, lambda: self._shell_pid, self._spec.limits)
            self._watching = asyncio.create_task(self._watchdog.run())
            if snapshot is not None:
                self._state = snapshot.state
                await self._restore_state()
        except BaseException:
            await self.stop()
            raise

    async def _launch(self, archive_fd: int | None) -> None:
        try:
            self._control.mkdir()
            self._channel = Channel(self._control, self._on_reply)
        except OSError as error:
            raise SandboxError(f"cannot start a sandbox: {error}") from error
        # Ready for the first reply before it can come: on a busy event loop it is read before anybody waits for it.
        self._reply = asyncio.get_running_loop().create_future()
        try:
            self._guest = await self._launcher.start(self._spec, self._control, self._channel.request_fds, archive_fd)
        except BaseException as error:
            self._channel.close()
            shutil.rmtree(self._control, ignore_errors=True)
            if isinstance(error, OSError):
                raise SandboxError(f"cannot start a sandbox: {error}") from error
            raise
        finally:
            self._channel.started()
        asyncio.get_running_loop().add_reader(self._guest.pidfd, self._on_end)
        self._failure = None
        self._channel.request("start")

    async def _first_reply(self) -> Reply:
        try:
            ready = await self._wait(_START_S)
        except SandboxError:
            raise start_error(self._guest.error()) from None
        if ready is None:
            raise SandboxError(f"the sandbox did not start within {_START_S:.0f} s")
        self._init_pid = self._guest.init_pid()
        return ready

    @property
    def directory(self) -> str:
        """Where the shell was after its last command."""
        return self._state.directory

    async def run(self, command: bytes, timeout_s: float, limit: int | None) -> Ran:
        """Run one command, keeping up to `limit` bytes of its output. A cancelled call ends the sandbox."""
        with self._ending():
            if self._shell_pid == 0:
                await self._new_shell()
            return await self._run(command, timeout_s, limit)

    async def run_apart(self, script: bytes, timeout_s: float, limit: int | None, content: bytes | None = None) -> Ran:
        """Run a script by /bin/sh in a process of its own, which finds `content` at `CONTROL/content`.

        Nothing of the shell's state takes part in it. A cancelled call ends the sandbox.
        """
        with self._ending(), self._channel.script(script.replace(b"\0", b""), content):
            return await self._run_apart(timeout_s, limit)

    @contextlib.contextmanager
    def _ending(self) -> Iterator[None]:
        """Within, what interrupts a request ends the sandbox."""
        self._require_alive()
        try:
            yield
        except asyncio.CancelledError:
            self._fail("was ended by a cancelled call")
            raise
        except OSError as error:
            self._fail(f"lost its wire: {error}")
            raise SandboxError(f"the sandbox {self._failure}") from error

    async def _run(self, command: bytes, timeout_s: float, limit: int | None) -> Ran:
        elders = list(processes.descendants(self._init_pid))
        self._channel.place_command(command.replace(b"\0", b""))
        output = self._channel.open_output("output", limit)
        started = self._begin()
        self._channel.request_command(self._key)
        reply = await self._wait(timeout_s)
        timed_out = reply is None
        if reply is None:
            reply = await self._interrupt(elders)
        return Ran(reply.status, *output.finish(), time.perf_counter() - started, timed_out)

    async def _run_apart(self, timeout_s: float, limit: int | None) -> Ran:
        elders = list(processes.descendants(self._init_pid))
        output = self._channel.open_output("answer", limit)
        started = self._begin()
        self._channel.request("script", self._key)
        reply = await self._wait_for_script(timeout_s)
        timed_out = reply is None
        if reply is None:
            processes.kill(self._init_pid, elders, ())
            reply = await self._wait_for_script(_DEATH_S)
        if reply is None:
            self._fail("did not end a script past its time-out")
            raise SandboxError(f"the sandbox {self._failure}")
        return Ran(reply.status, *output.finish(), time.perf_counter() - started, timed_out)

    def _begin(self) -> float:
        """Something is about to be run: gives it a key; returns the time."""
        self._watchdog.wake()
        self._key = secrets.token_hex(8)
        return time.perf_counter()

    async def _wait_for_script(self, timeout_s: float) -> Reply | None:
        deadline_s = time.perf_counter() + timeout_s
        while True:  # the shell may end meanwhile
            reply = await self._wait(max(0.0, deadline_s - time.perf_counter()))
            if reply is None or reply.kind == "ran":
                return reply

    async def snapshot(self) -> Snapshot:
        """Pack what changed; no command may be running."""
        self._require_alive()
        fd = await archive(self._guest.pid, self._launcher.disk, self._launcher.layers(ground(self._spec)))
        return Snapshot(self._spec, fd, self._state)

    def _require_alive(self) -> None:
        if self._failure is not None:
            raise SandboxError(f"the sandbox {self._failure}")

    async def _interrupt(self, elders: list[processes.Process]) -> Reply:
        """Have the shell end when it can, kill what the running command started, then, if need be, the shell.

        Returns only with the shell's end: were its signal still on the way, it would hit the next command.
        """
        shell_pid = self._shell_pid
        processes.send(shell_pid, signal.SIGUSR2)
        processes.kill(self._init_pid, elders, {shell_pid})
        reply = await self._wait_for_end(_SETTLE_S)
        if reply is None:
            processes.send(shell_pid, signal.SIGKILL)
            reply = await self._wait_for_end(_DEATH_S)
        if reply is None:
            self._fail("did not let go of a command past its time-out")
            raise SandboxError(f"the sandbox {self._failure}")
        return reply

    async def _wait_for_end(self, timeout_s: float) -> Reply | None:
        reply = await self._wait(timeout_s)
        # The command may finish after all, at the last moment; the shell's end comes next, or came with it already.
        if reply is not None and reply.kind == "done" and self._shell_pid != 0:
            reply = await self._wait(timeout_s)
        return reply

    async def _new_shell(self) -> None:
        """Have process 1 start another shell, and bring it to the directory and environment of the last."""
        self._channel.request("start")
        ready = await self._wait(_DEATH_S)
        if ready is None or ready.kind != "ready":
            self._fail("could not start another shell")
            raise SandboxError(f"the sandbox {self._failure}")
        self._adopt(ready)
        await self._restore_state()

    async def _restore_state(self) -> None:
        state = self._state
        restore = f"cd -- {shlex.quote(state.directory)}\n{state.exports}"
        await self._run(restore.encode("utf-8", "surrogateescape"), _DEATH_S, 0)

    def _adopt(self, ready: Reply) -> None:
        for pid in processes.children(self._init_pid):
            if processes.inner_pid(pid) == ready.status:
                self._shell_pid = pid
                try:
                    self._shell_fd = os.pidfd_open(pid)
                except ProcessLookupError:
                    self._channel.request("wait")
                    return
                asyncio.get_running_loop().add_reader(self._shell_fd, self._on_shell_end)

    def _on_shell_end(self) -> None:
        """Process 1, whose child it is, says how it ended."""
        self._forget_shell()
        self._channel.request("wait")

    def _forget_shell(self) -> None:
        if self._shell_fd >= 0:
            asyncio.get_running_loop().remove_reader(self._shell_fd)
            os.close(self._shell_fd)
            self._shell_fd = -1

    async def _wait(self, timeout_s: float) -> Reply | None:
        """The next reply that ends a wait, or None after `timeout_s`. Raises SandboxError when the sandbox dies."""
        if self._reply is None:
            self._reply = asyncio.get_running_loop().create_future()
        done, _ = await asyncio.wait({self._reply}, timeout=timeout_s)
        if not done:
            return None
        reply, self._reply = self._reply.result(), None
        return reply

    def _counts(self, reply: Reply) -> bool:
        """False for what others than the shell and process 1 wrote, or what comes too late."""
        if reply.kind in ("done", "ran"):
            return reply.key == self._key
        if reply.kind == "died":
            return processes.inspect(self._shell_pid) is None
        # Where a shell was, and what it exported, is its commands' doing anyway.
        return reply.kind == "left" or self._shell_pid == 0

    def _on_reply(self, reply: Reply) -> None:
        if not self._counts(reply):
            return
        if reply.kind in ("done", "left"):
            self._state = reply
        if reply.kind == "died":
            self._shell_pid = 0
        if reply.kind != "left" and self._reply is not None and not self._reply.done():
            self._reply.set_result(reply)

    def _on_end(self) -> None:
        asyncio.get_running_loop().remove_reader(self._guest.pidfd)
        self._ended.set()
        self._fail(f"died ({self._guest.error()})")

    def _fail(self, failure: str) -> None:
        self._failure = self._failure or failure
        if not self._ended.is_set():
            self._guest.kill()
        if self._reply is not None and not self._reply.done():
            self._reply.set_exception(SandboxError(f"the sandbox {self._failure}"))
            self._reply.exception()  # seen: after a time-out nobody waits for it any more, which asyncio would report

    async def stop(self) -> None:
        """End every process of the sandbox and remove its control directory; returns when both are gone."""
        self._fail("is not running any more")
        if self._watching is not None:
            self._watching.cancel()
        try:
            for _ in range(_KILLS):
                # A start in progress may be between two of its processes: the one that was killed was the wrong one.
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._ended.wait(), _DEATH_S / _KILLS)
                    break
                self._guest.kill()
        finally:
            asyncio.get_running_loop().remove_reader(self._guest.pidfd)
            self._forget_shell()
            self._channel.close()
            self._guest.close()
            shutil.rmtree(self._control, ignore_errors=True)
