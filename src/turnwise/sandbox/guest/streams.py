"""What process 1 reads: a command's output, and the host's requests (see `main` for how they are written)."""

import json
import os
import time
from typing import Any, Dict, Optional

PIPE_BYTES = 65536
# Past its limit an output is thrown away at this pace (6 MB/s): endless output then costs next to nothing.
_DISCARD_PAUSE_S = 0.01


class Output:
    """Collects up to `limit` bytes of one command's output and discards the rest, slowly."""

    def __init__(self, fd: int, limit: int) -> None:
        self.fd = fd
        self.limit = limit
        self.kept = b""
        self.truncated = False
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
        room = self.limit - len(self.kept)
        self.kept += data[: max(room, 0)]
        self.truncated = self.truncated or len(data) > room
        if self.truncated:
            self.resume_at = time.monotonic() + _DISCARD_PAUSE_S
        return len(data)

    def finish(self) -> bytes:
        """The bytes kept, when the command is done: what its processes wrote by then is in the pipe at the latest."""
        while not self.ended and not self.truncated and self.take():
            pass
        kept, self.kept, self.limit = self.kept, b"", 0
        return kept


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
