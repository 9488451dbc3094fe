"""An OpenAI-compatible server on loopback that says what a test wants, over real HTTP."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Answer:
    """One HTTP answer; `body` that is no text is sent as JSON."""

    body: Any
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    delay_s: float = 0.0
    drip_s: float = 0.0  # between two bytes of the body
    whole: bool = True  # else the connection is closed before the body's last byte


def completion(
    text: str | list[Any] | None,
    *,
    prompt: int = 100,
    cached: int = 0,
    sampled: int = 10,
    finish: str = "stop",
    **more: Any,
) -> Answer:
    """A chat completion with its count of tokens."""
    usage = {
        **{"prompt_tokens": prompt, "completion_tokens": sampled, "total_tokens": prompt + sampled},
        "prompt_tokens_details": {"cached_tokens": cached},
    }
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": finish}
    plain = {"id": "c", "object": "chat.completion", "created": 0, "model": "m", "choices": [choice], "usage": usage}
    return Answer({**plain, **more})


def error(status: int, message: str, code: str | None = None, **headers: str) -> Answer:
    """An error as OpenAI words it."""
    return Answer({"error": {"message": message, "type": "t", "param": None, "code": code}}, status, headers)


@dataclass
class Request:
    """What a client asked."""

    path: str
    headers: dict[str, str]
    body: dict[str, Any]

    @property
    def replies(self) -> int:
        """How many times the assistant has spoken before."""
        return sum(message["role"] == "assistant" for message in self.body["messages"])


Script = Callable[[Request], Answer]


class ScriptedServer:
    """Answers every POST with `script(request)`, called in a thread of its own; `asked` lists the requests."""

    def __init__(self, script: Script) -> None:
        self.script = script
        self.asked: list[Request] = []
        self._lock = threading.Lock()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self.url = f"http://127.0.0.1:{self._server.server_port}/v1"

    @contextmanager
    def running(self) -> Iterator["ScriptedServer"]:
        thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        try:
            yield self
        finally:
            self._server.shutdown()
            self._server.server_close()
            thread.join()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                headers = {name.lower(): value for name, value in self.headers.items()}
                with server._lock:
                    request = Request(self.path, headers, body)
                    server.asked.append(request)
                answer = server.script(request)
                time.sleep(answer.delay_s)
                self._send(answer)

            def _send(self, answer: Answer) -> None:
                said = (answer.body if isinstance(answer.body, str) else json.dumps(answer.body)).encode()
                kind = "text/html" if isinstance(answer.body, str) else "application/json"
                try:
                    self.send_response(answer.status)
                    for name, value in {"content-type": kind, **answer.headers}.items():
                        self.send_header(name.replace("_", "-"), value)
                    self.send_header("content-length", str(len(said)))
                    self.end_headers()
                    for part in _parts(said if answer.whole else said[:-1], answer.drip_s):
                        self.wfile.write(part)
                    self.close_connection = not answer.whole
                except (BrokenPipeError, ConnectionResetError):
                    self.close_connection = True  # the client no longer waits

            def log_message(self, format: str, *args: object) -> None:
                """Nothing is logged."""

        return Handler


def _parts(said: bytes, drip_s: float) -> Iterator[bytes]:
    if not drip_s:
        yield said
        return
    for at in range(len(said)):
        yield said[at : at + 1]
        time.sleep(drip_s)


def in_turn(*answers: Answer) -> Script:
    """The answers one after another; the last one for ever."""
    left = iter(answers[:-1])
    return lambda request: next(left, answers[-1])


@contextmanager
def serving(script: Script) -> Iterator[ScriptedServer]:
    """A server that runs while the block does."""
    with ScriptedServer(script).running() as server:
        yield server
