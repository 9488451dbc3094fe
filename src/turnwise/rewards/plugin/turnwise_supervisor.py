"""Runs the command of the tests and keeps what came of it where the code under test cannot write. Runs in the sandbox.

Usage: python -I -S -B turnwise_supervisor.py RESULTS SECRET TIMEOUT_S COMMAND [FILE ...]

A shell runs COMMAND in a child process, for TIMEOUT_S seconds at most. Its output comes through a pipe, and so do the
outcomes that pytest reports where COMMAND calls turnwise_pytest.py: a line each, which begins with a token of this run.
When the command has ended, whatever it left running is killed; only then the record is written to RESULTS, sealed with
a secret that no other process has held in its memory: the file SECRET begins with it, and is gone before the command
starts. Needs Python 3.6 or later, nothing else.

The first line of RESULTS has the number of bytes of the record's lines, which follow: those that `turnwise_pytest` sent
and, last, ("ran", exit code (-N for signal N), whether it timed out, number of processes that could not be ended,
[contents of each FILE before the command ran]). Then come the command's output, and as the last 64 bytes the seal.
"""

import ctypes
import os
import select
import signal
import sys
import time
from _blake2 import blake2b  # hashlib loads all of OpenSSL first

LOG_BYTES = 64 * 1024 * 1024
RECORD_BYTES = 256 * 1024 * 1024
KILL_S = 5.0
REPORT_FD, TOKEN_FD = 198, 199  # the command's ends of two pipes: `turnwise_pytest` uses them
_PR_SET_DUMPABLE, _PR_SET_CHILD_SUBREAPER = 4, 36


def supervise(results: str, secret: str, timeout_s: str, command: str, *files: str) -> int:
    """Run the command and write its sealed record; its exit code as a shell has it, 124 where it timed out."""
    seal, contents = _take_secret(secret), [_content(path) for path in files]
    _shut_in()
    token = os.urandom(16).hex().encode()
    child, reports, output, ended = _start(command, token)
    rows, log, timed_out = _follow(child, reports, output, ended, token, time.monotonic() + float(timeout_s))
    if timed_out:
        os.kill(child, signal.SIGKILL)
    status = os.waitpid(child, 0)[1]
    code = os.WEXITSTATUS(status) if os.WIFEXITED(status) else -os.WTERMSIG(status)
    left = _kill_leftovers(time.monotonic() + KILL_S)
    record = b"\n".join([*rows, repr(("ran", code, timed_out, left, contents)).encode(), b""])
    text = b"%d\n%b%b" % (len(record), record, log)
    _write(results, text + blake2b(text, key=seal, digest_size=32).hexdigest().encode())
    return 124 if timed_out else code if code >= 0 else 128 - code


def _content(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read()


def _take_secret(path: str) -> bytes:
    """Read the secret and remove its file."""
    with open(path, "rb") as file:
        secret = file.readline().split()[0]
    os.unlink(path)
    return secret


def _shut_in() -> None:
    """Keep other processes of this user out of this one's memory and descriptors, and adopt the orphans of the command,
    so that none gets away."""
    library = ctypes.CDLL(None)
    library.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)
    library.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def _start(command: str, token: bytes) -> tuple:
    """(process id, reports, output, what becomes readable when the process ends)."""
    reports, output, tokens, ended = os.pipe(), os.pipe(), os.pipe(), os.pipe()
    os.write(tokens[1], token)
    child = os.fork()
    if child == 0:
        try:
            for fd, number in ((output[1], 1), (output[1], 2), (reports[1], REPORT_FD), (tokens[0], TOKEN_FD)):
                os.dup2(fd, number)
            os.execv("/bin/bash", ["bash", "-c", command])
        finally:
            os._exit(127)
    for fd in (reports[1], output[1], tokens[0], tokens[1]):
        os.close(fd)
    os.set_blocking(ended[1], False)
    signal.signal(signal.SIGCHLD, lambda number, frame: None)
    signal.set_wakeup_fd(ended[1])
    if _has_ended(child):  # before the handler was there
        os.write(ended[1], b"\0")
    return child, reports[0], output[0], ended[0]


def _has_ended(child: int) -> bool:
    return os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


def _follow(child: int, reports: int, output: int, ended: int, token: bytes, deadline: float) -> tuple:
    """The reports and the output until the child has ended, with what is in the pipes then; whether it timed out."""
    taken = {reports: bytearray(), output: bytearray()}
    limits = {reports: RECORD_BYTES, output: LOG_BYTES}
    sources = [reports, output, ended]
    over = False
    while True:
        left_s = deadline - time.monotonic()
        ready = select.select(sources, [], [], 0 if over else max(0.0, left_s))[0]
        if left_s <= 0 or (over and not set(ready) - {ended}):
            break
        for fd in ready:
            data = os.read(fd, 65536)
            if fd == ended:
                over = over or _has_ended(child)
                deadline = min(deadline, time.monotonic() + KILL_S) if over else deadline
            elif data:
                taken[fd] += data[: max(0, limits[fd] - len(taken[fd]))]
            else:
                sources.remove(fd)
    lines = bytes(taken[reports]).split(b"\n")
    rows = [line[len(token) + 1 :] for line in lines if line.startswith(token + b" ")]
    return rows, bytes(taken[output]), not over


def _kill_leftovers(deadline: float) -> int:
    """End every process below this one; how many are still there at the deadline."""
    while True:
        found = _descendants()
        if not found or time.monotonic() > deadline:
            return len(found)
        for pid in found:
            try:
                os.kill(pid, signal.SIGKILL)
            except OSError:
                pass
        try:
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        except ChildProcessError:
            pass


def _descendants() -> list:
    """The living processes that descend from this one."""
    children: dict = {}
    for name in os.listdir("/proc"):
        state, parent = _stat(name) if name.isdigit() else (b"X", 0)
        if state not in b"ZX":
            children.setdefault(parent, []).append(int(name))
    found = list(children.get(os.getpid(), ()))
    for pid in found:
        found += children.get(pid, ())
    return found


def _stat(pid: str) -> tuple:
    """(state, parent) of a process; (b"X", 0) when it is gone."""
    try:
        with open("/proc/" + pid + "/stat", "rb") as file:
            words = file.read().rpartition(b")")[2].split()
        return words[0], int(words[1])
    except OSError:
        return b"X", 0


def _write(path: str, content: bytes) -> None:
    """A new file: one that something else put there is replaced."""
    draft = path + ".whole"
    with open(draft, "xb") as file:
        file.write(content)
    os.replace(draft, path)


if __name__ == "__main__":
    os._exit(supervise(*sys.argv[1:]))  # an orderly end of the interpreter takes 5 ms
