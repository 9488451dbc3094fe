"""Runs tests in a child process and keeps what they report where the child cannot change it. Runs inside the sandbox.

Usage: python -B -s turnwise_supervisor.py RESULTS_PATH SECRET_PATH KIND [ARGUMENT ...]

KIND is "pytest" (turnwise_results.py) or "script" (turnwise_script.py), each with its arguments, or "shell" with a
command.

The tests report through a pipe, each line numbered and signed with a key of this run, so that a line which something
else wrote, held back or repeated shows. Standard output goes through a second pipe: what was printed stays printed.
When the child has ended, whatever it left running is killed, and only then the record is written, sealed with a secret
that the child has never had in its memory: the file at SECRET_PATH begins with it, and is gone before any code of the
repository may run. Needs Python 3.6 or later, nothing else.
"""

import json
import os
import select
import signal
import sys
import time
import traceback
from _blake2 import blake2b  # hashlib loads all of OpenSSL first
from pathlib import Path
from typing import Any, Callable, Dict, List, NamedTuple, NoReturn, Tuple

Row = Dict[str, Any]
LOG_BYTES = 64 * 1024 * 1024
KILL_S = 5.0
_PR_SET_DUMPABLE, _PR_SET_CHILD_SUBREAPER = 4, 36


class Line(NamedTuple):
    """The child's end of the line to its supervisor.

    `send` reports one row. `wait` returns when the repository's code may run: to be called before it does.
    """

    send: Callable[[Row], None]
    wait: Callable[[], None]


def supervise(results: str, secret: str, log: str, work: Callable[[Line], int]) -> int:
    """Run `work` in a child process and write the sealed record of it; the child's exit code (-N for signal N).

    What `work` returns is the child's exit code. `secret` is the path of the file whose first word seals the record
    ("-": no seal). With a `log` path the child's output goes there.
    """
    record = os.open(results, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    reports, output, start = os.pipe(), os.pipe(), os.pipe()
    key = [os.urandom(32)]
    child = os.fork()
    if child == 0:
        _be_child(reports, output, start, key.pop(), bool(log), work)
    for end in (reports[1], output[1], start[0]):
        os.close(end)
    woken = _wake_on_exit()
    seal = _take_secret(secret)
    _shut_in()
    watch = _Watch(record, key[0], log)
    os.close(start[1])  # what the child waits for
    status = watch.follow(child, reports[0], output[0], woken)
    left = _kill_left_overs(time.monotonic() + KILL_S)
    _write_sealed(results, watch.rows(status, left), seal)
    return status


def _be_child(
    reports: Tuple[int, int],
    output: Tuple[int, int],
    start: Tuple[int, int],
    key: bytes,
    logged: bool,
    work: Callable[[Line], int],
) -> NoReturn:
    os.close(start[1])
    os.close(reports[0])
    if logged:
        os.dup2(output[1], 1)
        os.dup2(output[1], 2)
    line = [Line(_sender(reports[1], key), lambda: _read(start[0]))]
    del key  # code under test can look into every frame below its own
    code = 70
    try:
        code = work(line.pop())
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)  # a thread that a test left behind cannot hold the run up


def _read(fd: int) -> None:
    os.read(fd, 1)


def _sender(fd: int, key: bytes) -> Callable[[Row], None]:
    """Reports rows; in a process that the tests forked it does nothing."""
    owner, numbers, write, getpid = os.getpid(), iter(range(1 << 62)), os.write, os.getpid
    dumps = _encoder()

    def send(row: Row) -> None:
        if getpid() != owner:
            return
        line = _signed(next(numbers), dumps(row), key)
        while line:
            line = line[write(fd, line) :]

    return send


def _encoder() -> Callable[[Row], str]:
    """JSON by C alone where there is that: nothing of it can be replaced."""
    make = getattr(json.encoder, "c_make_encoder", None)
    if make is None:
        return json.dumps
    ascii_of = json.encoder.encode_basestring_ascii
    encode, join = make(None, None, ascii_of, None, ": ", ", ", False, False, True), "".join
    return lambda row: join(encode(row, 0))


def _signed(number: int, text: str, key: bytes) -> bytes:
    body = f"{number} {text}".encode()
    return blake2b(body, key=key, digest_size=16).hexdigest().encode() + b" " + body + b"\n"


def _take_secret(path: str) -> bytes:
    """Read the secret and remove every trace of it from the reach of others: its file, and this process's memory."""
    if path == "-":
        return b""
    with Path(path).open("rb") as file:
        secret = file.readline().split()[0]
    Path(path).unlink()
    return secret


def _shut_in() -> None:
    """Keep other processes of this user out of this one's memory and /proc, and whatever the tests start below it:
    an orphan of theirs becomes its child, so that none gets away."""
    import ctypes  # here, where it costs the child no time

    library = ctypes.CDLL(None)
    library.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)
    library.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def _wake_on_exit() -> int:
    """A descriptor that becomes readable when a child ends."""
    read, write = os.pipe()
    os.set_blocking(write, False)
    signal.signal(signal.SIGCHLD, lambda number, frame: None)
    signal.set_wakeup_fd(write)
    return read


class _Watch:
    """Takes in what the child reports and prints, until it ends."""

    def __init__(self, record: int, key: bytes, log: str) -> None:
        self._record = record
        self._key = key
        self._log = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600) if log else -1
        self._log_bytes = 0
        self._log_digest = blake2b(digest_size=16)
        self._rest = b""
        self._rows: List[Row] = []
        self._strange = ""

    def follow(self, child: int, reports: int, output: int, woken: int) -> int:
        """The child's exit status, when it has ended and all that it wrote is taken in."""
        sources = [reports, output, woken]
        while True:
            ready, _, _ = select.select(sources, [], [])
            for fd in ready:
                if fd != woken and not self._take(fd, fd == reports):
                    sources.remove(fd)
            if woken in ready:
                os.read(woken, 64)
                pid, status = os.waitpid(child, os.WNOHANG)
                if pid:
                    break
        for fd in (reports, output):
            os.set_blocking(fd, False)
            while fd in sources and self._take(fd, fd == reports):
                pass
        return os.WEXITSTATUS(status) if os.WIFEXITED(status) else -os.WTERMSIG(status)

    def _take(self, fd: int, is_report: bool) -> bool:
        """Read once; False where there is nothing more."""
        try:
            data = os.read(fd, 65536)
        except BlockingIOError:
            return False
        if is_report:
            *lines, self._rest = (self._rest + data).split(b"\n")
            for line in lines:
                self._add(line)
        elif self._log >= 0:
            kept = data[: max(0, LOG_BYTES - self._log_bytes)]
            self._log_bytes += len(kept)
            self._log_digest.update(kept)
            os.write(self._log, kept)
        return bool(data)

    def _add(self, line: bytes) -> None:
        text = line.partition(b" ")[2].partition(b" ")[2]
        if line + b"\n" != _signed(len(self._rows), text.decode(errors="replace"), self._key):
            self._strange = self._strange or "something else than the test run wrote to the channel of its results"
            return
        self._rows.append(json.loads(text.decode()))
        os.write(self._record, text + b"\n")  # so that a run which is cut off keeps what had finished

    def rows(self, status: int, left: int) -> List[Row]:
        """All that was reported, and how it ended."""
        alarms = [self._strange] if self._strange else []
        if left:
            alarms.append(f"{left} processes that the tests left running could not be ended")
        if self._rest:
            alarms.append("the last line of the results is cut off")
        end = {"exit_code": status, "log": self._log_digest.hexdigest()}
        return [*self._rows, *({"alarm": alarm} for alarm in alarms), {"end": end}]


def _kill_left_overs(deadline: float) -> int:
    """End every process below this one; how many are still there at the deadline."""
    while True:
        found = _below()
        if not found or time.monotonic() > deadline:
            return len(found)
        for pid in found:
            try:
                os.kill(pid, signal.SIGKILL)
            except OSError:
                pass
        _reap()


def _below() -> List[int]:
    """The living processes that descend from this one."""
    children: Dict[int, List[int]] = {}
    for name in os.listdir("/proc"):  # a Path for every entry costs more than the look at it
        state, parent = _stat(int(name)) if name.isdigit() else ("X", 0)
        if state not in "ZX":
            children.setdefault(parent, []).append(int(name))
    found = list(children.get(os.getpid(), ()))
    for pid in found:
        found += children.get(pid, ())
    return found


def _stat(pid: int) -> Tuple[str, int]:
    """(state, parent) of a process; ("X", 0) when it is gone."""
    try:
        with Path(f"/proc/{pid}/stat").open("rb") as file:
            words = file.read().rpartition(b")")[2].split()
        return words[0].decode(), int(words[1])
    except OSError:
        return "X", 0


def _reap() -> None:
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        pass


def _write_sealed(results: str, rows: List[Row], seal: bytes) -> None:
    """Put the whole record in place of what was kept so far, which others may have written to."""
    text = "".join(json.dumps(row) + "\n" for row in rows).encode()
    mac = blake2b(text, key=seal, digest_size=32).hexdigest()
    draft = Path(results + ".whole")
    with draft.open("xb") as file:
        file.write(text + json.dumps({"seal": mac}).encode() + b"\n")
    draft.replace(results)


def run_shell(line: Line, command: str) -> int:
    """Have a shell run a command; nothing is reported of it but its exit code."""
    paths = os.environ.pop("TURNWISE_PYTHONPATH", "")
    if paths:
        os.environ["PYTHONPATH"] = paths
    line.wait()
    os.execvp("/bin/bash", ["bash", "-c", command])


def main(results: str, secret: str, kind: str, *arguments: str) -> int:
    """Run the tests; their exit code, as a shell has it. What imports pytest is imported in the child only."""

    def work(line: Line) -> int:
        if kind == "shell":
            return run_shell(line, *arguments)
        module, given = __import__("turnwise_results" if kind == "pytest" else "turnwise_script"), [line]
        del line  # see `_be_child`
        return int(module.run(given.pop(), *arguments))

    logged = kind != "pytest" or arguments[0] == "own"
    code = supervise(results, secret, results + ".log" if logged else "", work)
    return code if code >= 0 else 128 - code


if __name__ == "__main__":
    os._exit(main(*sys.argv[1:]))  # an orderly end of the interpreter takes 5 ms
