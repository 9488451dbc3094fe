"""The line to a container's process 1: requests to `guest.main`, one at a time, over a byte stream that blocks.

The stream is what differs between engines (an attached socket, a websocket); clients that block are driven from
threads, so that no engine can hold up the event loop. Each line has two threads of its own, one a direction: what is
sent on one waits for no other.
"""

import asyncio
import contextlib
import json
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, BinaryIO, Protocol

from turnwise.errors import SandboxError

_CHUNK_BYTES = 1 << 18


class Stream(Protocol):
    """A container's stdin and stdout. Both calls block, each is made from one thread at a time; OSError when broken."""

    def send(self, data: bytes) -> None:
        """Send all of `data`."""
        ...

    def receive(self) -> bytes:
        """What came next; b"" when the other end is gone."""
        ...

    def close(self) -> None:
        """Close it, from any thread: a `receive` in progress returns. May be called again."""
        ...


@dataclass(frozen=True)
class Answer:
    """What process 1 answered.

    >>> Answer({"status": 0}, b"hello").fields["status"]
    0
    """

    fields: Mapping[str, Any]
    payload: bytes = b""


@dataclass
class Messages:
    """Cuts a byte stream into answers: each message is a line of JSON and `size` bytes; all but the last have `more`.

    >>> Messages().feed(b'{"size": 2, "more": true}\\nok{"size": 0, "status": 3}\\n')
    [Answer(fields={'size': 0, 'status': 3}, payload=b'ok')]
    """

    _buffer: bytearray = field(default_factory=bytearray)
    _header: dict[str, Any] | None = None
    _parts: list[bytes] = field(default_factory=list)

    def feed(self, data: bytes) -> list[Answer]:
        """The answers that `data` completes."""
        self._buffer += data
        answers = []
        while self._message():
            assert self._header is not None
            if not self._header.get("more"):
                answers.append(Answer(self._header, b"".join(self._parts)))
                self._parts = []
            self._header = None
        return answers

    def _message(self) -> bool:
        if self._header is None:
            line, newline, _ = self._buffer.partition(b"\n")
            if not newline:
                return False
            self._header = json.loads(line)
            del self._buffer[: len(line) + 1]
        size = self._header["size"]
        if len(self._buffer) < size:
            return False
        self._parts.append(bytes(self._buffer[:size]))
        del self._buffer[:size]
        return True


class Line:
    """Asks process 1, and notices its end. `cause_of_death` may block; it is asked once the stream has ended."""

    def __init__(self, stream: Stream, cause_of_death: Callable[[], str]) -> None:
        self._stream = stream
        self._sender = ThreadPoolExecutor(1, "sandbox-line")
        self._cause_of_death = cause_of_death
        self._loop = asyncio.get_running_loop()
        self._sending = asyncio.Lock()
        self._answer: asyncio.Future[Answer] | None = None
        self._failure = ""
        threading.Thread(target=self._listen, name="sandbox-line", daemon=True).start()

    async def ask(self, request: Mapping[str, Any], within_s: float, payload: BinaryIO | bytes = b"") -> Answer:
        """Send one request and wait for its answer. A cancelled call ends the sandbox.

        Raises SandboxError when the sandbox is dead, dies, or does not answer, which ends it.
        """
        self.require_alive()
        self._answer = self._loop.create_future()
        try:
            return await asyncio.wait_for(self._ask(self._answer, request, payload), within_s)
        except TimeoutError:
            self.fail(f"did not answer within {within_s:.0f} s")
        except OSError as error:
            self.fail(f"lost its line: {error}")
        except asyncio.CancelledError:
            self.fail("was ended by a cancelled call")
            raise
        raise SandboxError(f"the sandbox {self._failure}")

    async def _ask(
        self, answer: "asyncio.Future[Answer]", request: Mapping[str, Any], payload: BinaryIO | bytes
    ) -> Answer:
        await self._send(request, payload)
        return await answer

    async def ping(self) -> None:
        """Let the other end know that this one is there."""
        with contextlib.suppress(OSError, SandboxError):  # its listener hears of the end, too
            await self._send({"do": "ping"}, b"")

    async def send(self, data: bytes) -> None:
        """Send what is no request. Raises SandboxError."""
        self.require_alive()
        try:
            await self._loop.run_in_executor(self._sender, self._stream.send, data)
        except OSError as error:
            self.fail(f"lost its line: {error}")
            self.require_alive()

    async def _send(self, request: Mapping[str, Any], payload: BinaryIO | bytes) -> None:
        async with self._sending:
            self.require_alive()
            await self._loop.run_in_executor(self._sender, self._send_all, request, payload)

    def _send_all(self, request: Mapping[str, Any], payload: BinaryIO | bytes) -> None:
        if isinstance(payload, bytes):
            self._stream.send(json.dumps({**request, "size": len(payload)}).encode() + b"\n" + payload)
            return
        size = payload.seek(0, 2)
        payload.seek(0)
        self._stream.send(json.dumps({**request, "size": size}).encode() + b"\n")
        while chunk := payload.read(_CHUNK_BYTES):
            self._stream.send(chunk)

    def require_alive(self) -> None:
        """Raises SandboxError once the sandbox is dead."""
        if self._failure:
            raise SandboxError(f"the sandbox {self._failure}")

    def fail(self, failure: str) -> None:
        """End the line, and with it the container; the first reason given is what later calls hear."""
        self._failure = self._failure or failure
        self._stream.close()
        self._sender.shutdown(wait=False)
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(SandboxError(f"the sandbox {self._failure}"))
            self._answer.exception()  # seen: there may be nobody left who waits for it

    def _listen(self) -> None:
        messages, failure = Messages(), ""
        try:
            while data := self._stream.receive():
                for answer in messages.feed(data):
                    self._loop.call_soon_threadsafe(self._on_answer, answer)
        except (OSError, ValueError) as error:
            failure = f": {error}"
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody is left to hear of it
            if not self._failure:
                self._loop.call_soon_threadsafe(self.fail, f"died ({self._cause_of_death()}{failure})")

    def _on_answer(self, answer: Answer) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_result(answer)
