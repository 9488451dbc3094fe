"""The wire between a live sandbox and the host: commands in, replies and outputs back.

The control directory (seen read-only inside, at `view.CONTROL`) holds `command` (an empty file: its text is written
when only the shell can still reach it), `script` and `content` (what process 1 runs apart from the shell, and bytes for
it, while it runs) and three FIFOs: `reply`, where the shell says that a command is done, and `output` and `answer`,
made anew for every command and every script. That a command is done is known from its reply, never from the end of its
output: a background process may keep that open for as long as it likes.

Everything inside can write to `reply`. So each command has a key, which the shell reads when the command is over, and
says: other replies do not count, be they made up or late. That guards against what commands write, not against programs
that go for the shell itself: theirs is the same user, who may look into its memory and its descriptors.
"""

import asyncio
import contextlib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from turnwise.sandbox.guest.streams import Kept, waiting_bytes

_PIPE_BYTES = 65_536
# More than an environment that programs can be started in; what is longer was not written by the shell.
_REPLY_BYTES = 1 << 22
# Past its limit an output is thrown away at this pace (6 MB/s): endless output then costs the host next to nothing.
_DISCARD_PAUSE_S = 0.01


@dataclass(frozen=True)
class Reply:
    """What the sandbox said. `exports` is shell text that brings the environment back, "" if it said none.

    >>> parse_reply(b"done 3 5eed\\n/testbed\\ndeclare -x A=1\\nend")
    Reply(kind='done', status=3, directory='/testbed', exports='declare -x A=1\\n', key='5eed')
    """

    kind: str  # "ready", "done", "left" (a shell on its way out), "died" (of it), "ran" (a script apart from the shell)
    status: int
    directory: str
    exports: str
    key: str = ""  # of the command that is done, or the script


def parse_reply(message: bytes) -> Reply | None:
    """One message of the reply FIFO; None when it was cut off (its shell was killed while writing it)."""
    head, _, rest = message.decode("utf-8", "surrogateescape").partition("\n")
    kind, status, key = [*head.split(" "), "", ""][:3]
    if not rest.endswith("end") or not status.isdigit():
        return None
    directory, _, exports = rest.removesuffix("end").partition("\n")
    return Reply(kind, int(status), directory, exports, key)


class Output:
    """Collects the head and the tail of one command's output, `limit` bytes of it, without ever blocking the loop."""

    def __init__(self, fd: int, limit: int | None) -> None:
        self._fd = fd
        self._kept = Kept(limit)
        self._timer: asyncio.TimerHandle | None = None
        self.ended = False
        asyncio.get_running_loop().add_reader(fd, self._on_readable)

    def _on_readable(self) -> None:
        self._take()
        if self._kept.full and not self.ended:
            loop = asyncio.get_running_loop()
            loop.remove_reader(self._fd)
            self._timer = loop.call_later(_DISCARD_PAUSE_S, loop.add_reader, self._fd, self._on_readable)

    def _take(self) -> int:
        """Read once; returns how many bytes came."""
        try:
            data = os.read(self._fd, _PIPE_BYTES)
        except BlockingIOError:
            return 0
        if not data:
            self.close()
        self._kept.add(data)
        return len(data)

    def finish(self) -> tuple[bytes, bytes, int]:
        """What was kept, when the command is done: what its processes wrote by then is in the pipe at the latest."""
        left = 0 if self.ended else waiting_bytes(self._fd)
        while left > 0 and not self.ended:
            left -= self._take() or left
        parts, self._kept = self._kept.parts(), Kept(0)
        return parts

    def close(self) -> None:
        """Close the pipe; whoever still writes to it gets EPIPE."""
        if self.ended:
            return
        self.ended = True
        if self._timer is not None:
            self._timer.cancel()
        asyncio.get_running_loop().remove_reader(self._fd)
        os.close(self._fd)


class Channel:
    """The host's end of the control directory. `on_reply` is called for every reply that came whole."""

    def __init__(self, control: Path, on_reply: Callable[[Reply], None]) -> None:
        self._control = control
        self._on_reply = on_reply
        self._partial = b""
        self._lingering: list[Output] = []
        init_read, self._init = os.pipe()
        shell_read, self._shell = os.pipe()
        self.request_fds = init_read, shell_read
        os.mkfifo(control / "reply")
        (control / "reply").chmod(0o666)
        self._reply = os.open(control / "reply", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        self._command = self._new_command()
        asyncio.get_running_loop().add_reader(self._reply, self._on_readable)

    def started(self) -> None:
        """Close the ends of the request pipes that the sandbox holds now."""
        for fd in self.request_fds:
            os.close(fd)

    def _on_readable(self) -> None:
        data = os.read(self._reply, _PIPE_BYTES)
        *messages, self._partial = (self._partial + data).split(b"\0")
        for message in filter(None, messages):
            reply = parse_reply(message)
            if reply is not None:
                self._on_reply(reply)
        self._partial = self._partial[-_REPLY_BYTES:]

    def _new_command(self) -> int:
        path = self._control / "command"
        path.unlink(missing_ok=True)
        return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)

    def place_command(self, text: bytes) -> None:
        """Write to the file that the shell opened before it said "ready" or "done", and that has no name any more."""
        opened, self._command = self._command, self._new_command()
        with os.fdopen(opened, "wb") as file:
            file.write(text)

    @contextlib.contextmanager
    def script(self, text: bytes, content: bytes | None) -> Iterator[None]:
        """Have a script, and `content` where it needs some, in the control directory while it runs."""
        paths = self._control / "script", self._control / "content"
        paths[0].write_bytes(text)
        if content is not None:
            paths[1].write_bytes(content)
        try:
            yield
        finally:
            for path in paths:
                path.unlink(missing_ok=True)

    def open_output(self, name: str, limit: int | None) -> Output:
        """A new FIFO for output, ready before it is opened inside. Those that background processes hold live on."""
        self._lingering = [output for output in self._lingering if not output.ended]
        path = self._control / name
        path.unlink(missing_ok=True)
        os.mkfifo(path)
        path.chmod(0o666)
        output = Output(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), limit)
        self._lingering.append(output)
        return output

    def request_command(self, key: str) -> None:
        """Have the shell run the command that was placed."""
        _send(self._shell, f"run\n{key}")

    def request(self, order: str, key: str = "") -> None:
        """Ask process 1 to "start" a shell, to "wait" for one that ended, or to run the "script"."""
        _send(self._init, f"{order} {key}\n")

    def close(self) -> None:
        """Close every descriptor; the sandbox's shell ends when it notices."""
        asyncio.get_running_loop().remove_reader(self._reply)
        for output in self._lingering:
            output.close()
        os.close(self._command)
        os.close(self._reply)
        os.close(self._init)
        os.close(self._shell)


def _send(fd: int, text: str) -> None:
    with contextlib.suppress(BrokenPipeError):
        os.write(fd, text.encode())
