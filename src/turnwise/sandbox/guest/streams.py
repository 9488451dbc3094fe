"""What process 1 reads: a command's output, and the host's requests (see `main` for how they are written)."""

import fcntl
import json
import os
import sys
import termios
import time
from typing import Any, Dict, Optional, Tuple

PIPE_BYTES = 65536
# Past its limit an output is thrown away at this pace (6 MB/s): endless output then costs next to nothing.
_DISCARD_PAUSE_S = 0.01


class Kept:
    """The head and the tail of a stream, `limit` bytes together (None: all of it), however long it is."""

    def __init__(self, limit: Optional[int]) -> None:
        self._head_limit = None if limit is None else limit - limit // 2
        self._tail_limit = 0 if limit is None else limit // 2
        self._head = bytearray()
        self._tail = bytearray()
        self._total = 0

    def add(self, data: bytes) -> None:
        """Take in what came next."""
        room = len(data) if self._head_limit is None else self._head_limit - len(self._head)
        self._head += data[:room]
        self._tail += data[room:]
        self._total += len(data)
        if len(self._tail) > self._tail_limit + 2 * PIPE_BYTES:  # not every time: it moves the tail
            del self._tail[: len(self._tail) - self._tail_limit]

    def parts(self) -> Tuple[bytes, bytes, int]:
        """Head, tail, and how many bytes are left out between them, 0 where nothing is."""
        del self._tail[: max(0, len(self._tail) - self._tail_limit)]
        return bytes(self._head), bytes(self._tail), self._total - len(self._head) - len(self._tail)

    @property
    def full(self) -> bool:
        """True once something has to be left out."""
        return self._head_limit is not None and self._total > self._head_limit + self._tail_limit


def waiting_bytes(fd: int) -> int:
    """How many bytes can be read from a pipe at once."""
    size = bytearray(4)
    fcntl.ioctl(fd, termios.FIONREAD, size)
    return int.from_bytes(size, sys.byteorder)


class Output:
    """Collects the head and the tail of one command's output; what is over `limit` bytes it reads slowly."""

    def __init__(self, fd: int, limit: int) -> None:
        self.fd = fd
        self.kept = Kept(limit)
        self.ended = False
        self.resume_at = 0.0

    def take(self) -> int:
        """Read once; returns how many bytes came."""
        try:
            data = os.read(self.fd, PIPE_BYTES)
        except BlockingIOError:
            return 0
        if not data:
            self.ended = True
            os.close(self.fd)
            return 0
        self.kept.add(data)
        if self.kept.full:
            self.resume_at = time.monotonic() + _DISCARD_PAUSE_S
        return len(data)

    def finish(self) -> Tuple[bytes, bytes, int]:
        """What was kept, when the command is done: what its processes wrote by then is in the pipe at the latest."""
        left = 0 if self.ended else waiting_bytes(self.fd)
        while left > 0 and not self.ended:
            left -= self.take() or left
        parts, self.kept = self.kept.parts(), Kept(0)
        return parts


class Host:
    """The other end of stdin and stdout."""

    def __init__(self) -> None:
        self.buffer = b""
        self.heard_at = time.monotonic()
        self.left = 0  # bytes of the current request's payload still to come

    def fill(self) -> None:
        """Take what came; blocks when nothing did. Ends the container when the host is gone."""
        data = os.read(0, PIPE_BYTES)
        if not data:
            os._exit(0)
        self.heard_at = time.monotonic()
        self.buffer += data

    def header(self) -> Optional[Dict[str, Any]]:
        """The next request, once its line is there; its payload is read next."""
        line, newline, rest = self.buffer.partition(b"\n")
        if not newline:
            return None
        self.buffer = rest
        request: Dict[str, Any] = json.loads(line.decode())
        self.left = request.get("size", 0)
        return request

    def read(self, size: int = -1) -> bytes:
        """Up to `size` bytes of the payload (all by default), as a file's `read` gives them."""
        wanted = self.left if size < 0 else min(size, self.left)
        while len(self.buffer) < wanted:
            self.fill()
        data, self.buffer = self.buffer[:wanted], self.buffer[wanted:]
        self.left -= wanted
        return data

    def drain(self) -> None:
        """Pass over what was not read of the payload."""
        while self.left:
            self.read(PIPE_BYTES)

    def answer(self, payload: bytes = b"", **fields: Any) -> None:
        """Send one message."""
        data = json.dumps(dict(fields, size=len(payload))).encode() + b"\n" + payload
        view = memoryview(data)
        while view:
            view = view[os.write(1, view) :]

    def write(self, part: bytes) -> int:
        """Send a part of an answer, as a file's `write` takes it."""
        self.answer(part, more=True)
        return len(part)
