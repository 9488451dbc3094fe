"""The folder where a backend keeps what must have a name on the host, and who removes it.

Three nets, because a killed process cleans nothing up: `close` removes the folder; the starter (one small process per
backend) removes it the moment its owner is gone; and each new backend sweeps the folders of which both have died.
Sandboxes' disks never lie here: they are tmpfs mounts that end with their sandbox's mount namespace.
"""

import asyncio
import contextlib
import functools
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from importlib import resources
from pathlib import Path

from turnwise.errors import SandboxError
from turnwise.sandbox.owner import is_gone, owner

_END_S = 5.0


def default_parent() -> Path:
    """Shared memory where it can be written (control files are made per command), else the temporary directory."""
    shared = Path("/dev/shm")
    return shared if os.access(shared, os.W_OK | os.X_OK) else Path(tempfile.gettempdir())


def abandoned(parent: Path) -> Iterator[Path]:
    """This user's state folders whose owning process is gone. (A container may share the parent, and number its
    processes in its own way.)"""
    for folder in parent.glob(f"turnwise-{os.getuid()}-*"):
        if is_gone(folder.name.split("-")[2]):
            yield folder


def sweep(parent: Path) -> None:
    """Remove this user's state folders whose owning process is gone."""
    for folder in abandoned(parent):
        shutil.rmtree(folder, ignore_errors=True)


class Workshop:
    """A backend's folder `turnwise-UID-OWNER-RANDOM` (see `owner`) and the starter that works, and guards it, there."""

    def __init__(self, parent: Path) -> None:
        """Raises OSError when the folder cannot be made."""
        sweep(parent)
        self.folder = parent / f"turnwise-{os.getuid()}-{owner()}-{secrets.token_hex(8)}"
        self._lock = asyncio.Lock()
        self._answered = asyncio.Event()
        self._connection, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._connection.setblocking(False)
        # The starter comes first: no instant is left at which a killed owner would leave a folder behind.
        self._starter = subprocess.Popen(
            # It names files in the encoding that this process does.
            [
                sys.executable,
                "-I",
                "-S",
                "-X",
                f"utf8={sys.flags.utf8_mode}",
                "-",
                str(other.fileno()),
                str(self.folder),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            pass_fds=[other.fileno()],
            cwd="/",
            start_new_session=True,  # a Ctrl-C at the terminal is for the user's program to handle
        )
        other.close()
        assert self._starter.stdin is not None
        with self._starter.stdin as program:
            program.write(source("starter.py").encode())
        try:
            self.folder.mkdir(mode=0o700)
        except OSError:
            self.close()
            raise

    @property
    def working(self) -> bool:
        """False once the starter has ended; its sandboxes have, too."""
        return self._starter.poll() is None

    async def order(self, order: Mapping[str, object], fds: Sequence[int]) -> tuple[int, int]:
        """Have a process started (see `starter`); its number, and a descriptor of it. Raises SandboxError."""
        exchange = asyncio.ensure_future(self._exchange(json.dumps(order).encode(), fds))
        try:
            return await asyncio.shield(exchange)
        except asyncio.CancelledError:
            # The answer must still be taken, or the next order would get it.
            exchange.add_done_callback(_end_unwanted)
            raise

    async def _exchange(self, order: bytes, fds: Sequence[int]) -> tuple[int, int]:
        # Copies: the caller may close its own before the lock is ours.
        copies = [os.memfd_create("sandbox-order"), *map(os.dup, fds)]
        try:
            os.write(copies[0], order)
            os.lseek(copies[0], 0, os.SEEK_SET)
            async with self._lock:
                socket.send_fds(self._connection, [b"start"], copies)
                await self._answer()
                answer, got, _, _ = socket.recv_fds(self._connection, 256, 1)
        except OSError as error:
            raise SandboxError(f"the starter of sandboxes is gone: {error}") from error
        finally:
            for fd in copies:
                os.close(fd)
        if not got:
            raise SandboxError(f"the starter could start no sandbox: {answer.decode() or 'it ended'}")
        return int(answer), got[0]

    async def _answer(self) -> None:
        """Wait until there is an answer to read, or `close` was called."""
        loop = asyncio.get_running_loop()
        self._answered.clear()
        loop.add_reader(self._connection, self._answered.set)
        try:
            await self._answered.wait()
        finally:
            if self._connection.fileno() >= 0:
                loop.remove_reader(self._connection)

    def close(self) -> None:
        """End the starter, and with it every sandbox that still lives, and the folder; blocks for milliseconds, or for
        `_END_S` where the starter hangs. An order in progress fails."""
        asyncio.get_running_loop().remove_reader(self._connection)
        self._answered.set()
        with contextlib.suppress(OSError):
            self._connection.shutdown(socket.SHUT_RDWR)  # a fork of this process may hold it, too
        self._connection.close()
        try:
            self._starter.wait(_END_S)
        except subprocess.TimeoutExpired:
            self._starter.kill()
            self._starter.wait()
        shutil.rmtree(self.folder, ignore_errors=True)


def _end_unwanted(exchange: "asyncio.Future[tuple[int, int]]") -> None:
    if not exchange.cancelled() and exchange.exception() is None:
        _, pidfd = exchange.result()
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        os.close(pidfd)


@functools.cache
def source(name: str) -> str:
    """The text of a file of this package, or of its scripts."""
    return (resources.files("turnwise.sandbox") / name).read_text(encoding="utf-8")
