"""The wire between a live sandbox and the host: commands in, replies and outputs back.

The control directory (seen read-only inside, at `view.CONTROL`) holds `command` (an empty file: its text is written
when only the shell can still reach it), `content` (bytes for a `write` in progress) and two FIFOs: `reply`, where the
shell says that a command is done, and `output`, made anew for every command. That a command is done is known from its
reply, never from the end of its output: a background process may keep that open for as long as it likes.

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

    kind: str  # "ready", "done", "left" (a shell on its way out), "died" (process 1 saw the shell end)
    status: int
    directory: str
    exports: str
    key: str = ""  # of the command that is done


def parse_reply(message: bytes) -> Reply | None:
    """One message of the reply FIFO; None when it was cut off (its shell was killed while writing it)."""
    head, _, rest = message.decode("utf-8", "surrogateescape").partition("\n")
    kind, status, key = [*head.split(" "), "", ""][:3]
    if not rest.endswith("end") or not status.isdigit():
        return None
    directory, _, exports = rest.removesuffix("end").partition("\n")
    return Reply(kind, int(status), directory, exports, key)


class Output:
    """Collects up to `limit` bytes of one command's output and discards the rest, without ever blocking the loop."""

    def __init__(self, fd: int, limit: int | None) -> None:
        self._fd = fd
        self._limit = limit
        self._chunks: list[bytes] = []
        self._kept = 0
        self._timer: asyncio.TimerHandle | None = None
        self.truncated = False
        self.ended = False
        asyncio.get_running_loop().add_reader(fd, self._on_readable)

    def _on_readable(self) -> None:
        self._take()
        if self.truncated and not self.ended:
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
            return 0
        room = len(data) if self._limit is None else self._limit - self._kept
        if room > 0:
            self._chunks.append(data[:room])
        self._kept += len(data[:room]) if room > 0 else 0
        self.truncated = self.truncated or len(data) > room
        return len(data)

    def finish(self) -> bytes:
        """The bytes kept, when the command is done: what its processes wrote by then is in the pipe at the latest."""
        while not self.ended and not self.truncated and self._take():
            pass
        kept, self._chunks, self._limit = b"".join(self._chunks), [], 0
        return kept

    def close(self) -> None:
        """Let go of the pipe; whoever still writes to it gets EPIPE."""
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
        self.request_read, self._request = os.pipe()
        os.mkfifo(control / "reply")
        (control / "reply").chmod(0o666)
        self._reply = os.open(control / "reply", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        self._command = self._new_command()
        asyncio.get_running_loop().add_reader(self._reply, self._on_readable)

    def started(self) -> None:
        """Let go of the end of the request pipe that the sandbox holds now."""
        os.close(self.request_read)

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
    def content(self, content: bytes | None) -> Iterator[None]:
        """Have `content`, if there is any, in the control directory, for the command that puts it in its place."""
        path = self._control / "content"
        if content is not None:
            path.write_bytes(content)
        try:
            yield
        finally:
            path.unlink(missing_ok=True)

    def open_output(self, limit: int | None) -> Output:
        """A new output FIFO, ready before the shell opens it. Outputs that background processes still hold live on."""
        self._lingering = [output for output in self._lingering if not output.ended]
        path = self._control / "output"
        path.unlink(missing_ok=True)
        os.mkfifo(path)
        path.chmod(0o666)
        output = Output(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), limit)
        self._lingering.append(output)
        return output

    def request(self, *lines: str) -> None:
        """Lines on the request pipe: "run" and the command's key, or (to process 1) "start", for a shell."""
        with contextlib.suppress(BrokenPipeError):
            os.write(self._request, "".join(f"{line}\n" for line in lines).encode())

    def close(self) -> None:
        """Close every descriptor; the sandbox's shell ends when it notices."""
        asyncio.get_running_loop().remove_reader(self._reply)
        for output in self._lingering:
            output.close()
        os.close(self._command)
        os.close(self._reply)
        os.close(self._request)
