"""Process 1 of a container: runs the commands of a sandbox whose host is elsewhere, told what to do over stdin.

This package is sent into the container as text, so it imports only the standard library and keeps to Python 3.6.
Nothing inside can kill process 1, and it lets nobody look into it. That a command is done it hears from the shell, by a
FIFO that everything inside can write to. So each command has a key, which the shell reads when the command is over, and
says: other replies do not count, be they made up or late. That guards against what commands write, not against programs
that go for the shell itself: theirs is the same user, who may look into its memory and its descriptors.

Both directions speak the same: one line of JSON whose `size` says how many bytes follow it. Every request but `ping`
gets one answer, of one or more messages; all but the last have `more`. When stdin ends, or nothing comes for
`silence_s`, the host is gone: process 1 ends, and the container with it.
"""

import contextlib
import ctypes
import errno
import os
import select
import signal
import stat
import sys
import time
from typing import Any, Callable, Dict, List, NamedTuple, NoReturn, Optional, Tuple

from turnwise.sandbox.guest.files import Baseline, unpack
from turnwise.sandbox.guest.processes import Process, kill, processes, send
from turnwise.sandbox.guest.streams import PIPE_BYTES, Host, Output

CONTROL = "/run/turnwise"
# Commands' shell: as in scripts/init.sh.
LOOP = (
    f". {CONTROL}/shell; while IFS= read -r -u 3 _turnwise; do "
    'mapfile -d "" -t _turnwise <&"$_turnwise_next"; exec {_turnwise_next}<&-; '
    f'eval "${{_turnwise[0]-}}" </dev/null >{CONTROL}/output 2>&1 3<&-; _turnwise_done $?; done'
)
# More than an environment that programs can be started in; what is longer was not written by the shell.
REPLY_BYTES = 1 << 22
PR_SET_DUMPABLE = 4
SETTLE_S, DEATH_S = 0.25, 10.0
WATCH_S, CROWDED_S, CROWDED_BELOW = 0.2, 1.0, 2
IDLE_S = 30.0
TIMED_OUT = 124


class Reply(NamedTuple):
    """What the shell said: "ready", "done" (with its command's key), "left" (on its way out), "died" (said for it)."""

    kind: str
    status: int
    directory: str
    exports: str
    key: str = ""


def parse_reply(message: bytes) -> Optional[Reply]:
    """One message of the shell; None when it was cut off (its shell was killed while writing it)."""
    head, _, rest = message.decode("utf-8", "surrogateescape").partition("\n")
    kind, status, key = [*head.split(" "), "", ""][:3]
    if not rest.endswith("end") or not status.isdigit():
        return None
    directory, _, exports = rest[: -len("end")].partition("\n")
    return Reply(kind, int(status), directory, exports, key)


class Guest:
    """The container's shell and what is known of it."""

    def __init__(self, config: Dict[str, Any]) -> None:
        self.config = config
        self.host = Host()
        self.shell_pid = 0
        self.shell_fds: Tuple[int, ...] = ()  # what the last shell was reached by
        self.state = Reply("done", 0, config["workdir"], "")
        self.reply: Optional[Reply] = None
        self.key = ""  # of the last command; none while a shell starts
        self.partial = b""
        self.outputs: List[Output] = []
        self.watched_at = 0.0
        self.crowded_since: Optional[float] = None
        self.others = 0
        self.wake_read, wake_write = os.pipe()
        for fd in (self.wake_read, wake_write):
            os.set_blocking(fd, False)
        signal.signal(signal.SIGCHLD, lambda number, frame: None)
        signal.set_wakeup_fd(wake_write)
        with os.fdopen(self.place("shell"), "wb") as file:
            file.write(config["shell"].encode())
        os.mkfifo(CONTROL + "/reply")
        self.replies = os.open(CONTROL + "/reply", os.O_RDWR | os.O_NONBLOCK)

    def place(self, name: str) -> int:
        """Put a new, empty file into the control directory."""
        path = os.path.join(CONTROL, name)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)
        return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)

    # Waiting: everything that can happen is taken care of in `turn`.

    def turn(self, timeout_s: float) -> None:
        """Wait for something to happen, at most `timeout_s`, and take it in."""
        now = time.monotonic()
        self.outputs = [output for output in self.outputs if not output.ended]
        timeout_s = min([timeout_s, *(output.resume_at - now for output in self.outputs if output.resume_at > now)])
        ready = {output.fd: output for output in self.outputs if output.resume_at <= now}
        poll = select.poll()
        for fd in [0, self.wake_read, self.replies, *ready]:
            poll.register(fd, select.POLLIN)
        for fd, _ in poll.poll(max(0.0, timeout_s) * 1000):
            if fd in ready:
                ready[fd].take()
            elif fd == 0:
                self.host.fill()
            elif fd == self.replies:
                self.take_replies()
            else:
                os.read(self.wake_read, PIPE_BYTES)
                self.bury()
        self.watch()
        if time.monotonic() - self.host.heard_at > self.config["silence_s"]:
            os._exit(0)

    def take_replies(self) -> None:
        """What the shell said."""
        try:
            data = os.read(self.replies, PIPE_BYTES)
        except BlockingIOError:
            return
        messages = (self.partial + data).split(b"\0")
        self.partial = messages.pop()[-REPLY_BYTES:]
        for message in filter(None, messages):
            reply = parse_reply(message)
            if reply is not None:
                self.take_reply(reply)

    def take_reply(self, reply: Reply) -> None:
        """What may be the shell's word. Where it was, and what it exported, is its commands' doing anyway."""
        told = reply.kind in ("done", "ready") and reply.key == self.key
        if told:
            self.reply = reply
        if reply.kind == "left" or (told and reply.kind == "done"):
            self.state = reply

    def bury(self) -> None:
        """Reap the dead; the shell may be among them."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            if pid == self.shell_pid:
                self.take_replies()  # its last words, said before it died
                self.shell_pid = 0
                code = 128 + os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)
                self.reply = Reply("died", code, "", "")

    def watch(self) -> None:
        """A crowd that stays at the limit (a fork bomb, no longer anybody's command) loses all but the shell."""
        now = time.monotonic()
        if now - self.watched_at < WATCH_S:
            return
        self.watched_at = now
        found = processes()
        shell = [process for process in found if process.pid == self.shell_pid]
        self.others = len(found) - len(shell)
        threads = sum(process.threads for process in found) - sum(process.threads for process in shell)
        if threads < self.config["processes"] - CROWDED_BELOW:
            self.crowded_since = None
            return
        self.crowded_since = self.crowded_since or now
        if now - self.crowded_since >= CROWDED_S or threads > self.config["processes"] + CROWDED_BELOW:
            kill(shell, {self.shell_pid})
            self.crowded_since = None

    def wait(self, timeout_s: float, kinds: Tuple[str, ...] = ("done", "died")) -> Optional[Reply]:
        """The shell's next word of these kinds, or None after `timeout_s`."""
        deadline = time.monotonic() + timeout_s
        while True:
            reply, self.reply = self.reply, None
            if reply is not None and reply.kind in kinds:
                return reply
            left_s = deadline - time.monotonic()
            if left_s <= 0:
                return None
            self.turn(min(left_s, WATCH_S))

    # The shell.

    def new_shell(self) -> None:
        """Start a shell in the directory and environment of the last one."""
        for fd in self.shell_fds:
            os.close(fd)
        request_read, self.request = os.pipe()
        self.key, self.command = "", self.place("command")
        self.shell_fds = self.request, self.command
        deadline = time.monotonic() + DEATH_S
        while self.shell_pid == 0:
            try:
                self.shell_pid = os.fork()
            except OSError as error:
                if error.errno != errno.EAGAIN or time.monotonic() > deadline:
                    raise
                self.turn(WATCH_S)  # a fork bomb took all the room; `watch` ends it
                continue
            if self.shell_pid == 0:
                self.become_shell(request_read)
        os.close(request_read)
        if self.wait(DEATH_S, ("ready", "died")) is None or self.shell_pid == 0:
            raise OSError("bash did not start")
        if self.state.exports or self.state.directory != self.config["workdir"]:
            self.restore()

    def become_shell(self, request_read: int) -> NoReturn:
        """In the child: become bash."""
        try:
            for number in (signal.SIGPIPE, signal.SIGXFSZ, signal.SIGCHLD):
                signal.signal(number, signal.SIG_DFL)
            os.chdir(self.config["workdir"])
            null = os.open("/dev/null", os.O_RDWR)
            for fd, inherited in enumerate((null, null, null, request_read)):
                os.dup2(inherited, fd)
            for name in os.listdir("/proc/self/fd"):  # up to the limit, old Pythons would close a thousand million
                if int(name) > 3:
                    os.closerange(int(name), int(name) + 1)  # also where it is closed already
            limits = ["unlimited", str(self.config["data_kb"]), str(self.config["file_kb"])]
            os.execvp("bash", ["bash", "--noprofile", "--norc", "-c", LOOP, "bash", *limits])
        finally:
            os._exit(127)

    def restore(self) -> None:
        """Bring the shell to the directory and environment that are remembered."""
        state = self.state
        quoted = "'" + state.directory.replace("'", "'\\''") + "'"
        self.execute(("cd -- " + quoted + "\n" + state.exports).encode("utf-8", "surrogateescape"), DEATH_S, 0)

    def execute(self, command: bytes, timeout_s: float, limit: int) -> Tuple[Dict[str, Any], bytes]:
        """Run a command in the shell that is there; what became of it, and its output."""
        elders = processes()
        self.give(command)
        output = self.open_output(limit)
        started = time.monotonic()
        self.reply, self.key = None, os.urandom(8).hex()
        with contextlib.suppress(BrokenPipeError):  # it was killed just now, which `wait` is about to see
            os.write(self.request, b"run\n" + self.key.encode() + b"\n")
        reply = self.wait(timeout_s)
        timed_out = reply is None
        if reply is None:
            reply = self.interrupt(elders)
        kept = output.finish()
        told = {"status": reply.status, "duration_s": time.monotonic() - started, "timed_out": timed_out}
        return dict(told, truncated=output.truncated), kept

    def give(self, command: bytes) -> None:
        """Write to the file that the shell opened before it said "ready" or "done", and that has no name any more."""
        opened, self.command = self.command, self.place("command")
        self.shell_fds = self.request, self.command
        with os.fdopen(opened, "wb") as file:
            file.write(command)

    def open_output(self, limit: int) -> Output:
        """A new output pipe, ready before the shell opens it; those that background processes still hold live on."""
        path = CONTROL + "/output"
        if os.path.exists(path):
            os.unlink(path)
        os.mkfifo(path)
        output = Output(os.open(path, os.O_RDONLY | os.O_NONBLOCK), limit)
        self.outputs.append(output)
        return output

    def interrupt(self, elders: List[Process]) -> Reply:
        """Have the shell end when it can, kill what the running command started, then, if need be, the shell.

        Returns only with the shell's end: were its signal still on the way, it would hit the next command.
        """
        shell_pid = self.shell_pid
        send(shell_pid, signal.SIGUSR2)
        kill(elders, {shell_pid})
        if self.wait(SETTLE_S, ("died",)) is None and self.shell_pid:
            send(shell_pid, signal.SIGKILL)
            self.wait(DEATH_S, ("died",))
        if self.shell_pid:
            raise OSError("the shell did not let go of a command past its time-out")
        return Reply("died", TIMED_OUT, "", "")

    # What the host can ask for.

    def begin(self, request: Dict[str, Any]) -> None:
        """The first shell: at the workdir, or in the directory and environment that the request brings."""
        if not os.path.isdir(self.config["workdir"]):
            raise OSError("it has no directory " + self.config["workdir"])
        if "directory" in request:
            self.state = Reply("done", 0, request["directory"], request["exports"])
        self.new_shell()
        self.host.answer()

    def run(self, request: Dict[str, Any]) -> None:
        """A command in the shell."""
        command = self.host.read()
        if self.shell_pid == 0:
            self.new_shell()
        told, output = self.execute(command, request["timeout_s"], request["limit"])
        self.host.answer(output, **told)

    def read(self, request: Dict[str, Any]) -> None:
        """A regular file's content."""
        try:
            fd = os.open(self.path(request), os.O_RDONLY | os.O_NONBLOCK)
        except OSError:
            self.host.answer(missing=True)
            return
        regular = stat.S_ISREG(os.fstat(fd).st_mode)
        while regular:
            part = os.read(fd, PIPE_BYTES)
            if not part:
                break
            self.host.write(part)
        os.close(fd)
        self.host.answer(missing=not regular)

    def write(self, request: Dict[str, Any]) -> None:
        """Overwrite a file, and make the directories it needs."""
        path = self.path(request)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "wb") as file:
            for part in iter(lambda: self.host.read(PIPE_BYTES), b""):
                file.write(part)
        self.host.answer()

    def unpack(self, request: Dict[str, Any]) -> None:
        """A tar archive, or what `pack` gave, into a directory, which is made."""
        os.makedirs(request["path"], exist_ok=True)
        unpack(self.host, request["path"])
        self.host.answer()

    def mark(self, request: Dict[str, Any]) -> None:
        """From here on, changes to files are what `pack` gives."""
        self.baseline = Baseline("/", CONTROL + "/marked")
        self.host.answer()

    def pack(self, request: Dict[str, Any]) -> None:
        """The files that changed since `mark`."""
        self.baseline.pack(self.host)
        self.host.answer()

    def remember(self, request: Dict[str, Any]) -> None:
        """Where the shell is, and its environment."""
        self.host.answer(directory=self.state.directory, exports=self.state.exports)

    def path(self, request: Dict[str, Any]) -> str:
        """The request's path, which may be relative to the workdir."""
        path: str = request["path"]
        return os.path.join(self.config["workdir"], path)

    def serve(self) -> NoReturn:
        """Do what the host asks, until it is gone."""
        actions: Dict[str, Callable[[Dict[str, Any]], None]] = {
            "begin": self.begin,
            "run": self.run,
            "read": self.read,
            "write": self.write,
            "unpack": self.unpack,
            "mark": self.mark,
            "pack": self.pack,
            "remember": self.remember,
            "ping": lambda request: None,
        }
        while True:
            request = self.host.header()
            if request is None:
                self.turn(WATCH_S if self.others else IDLE_S)
                continue
            try:
                actions[request["do"]](request)
            except OSError as error:
                self.host.answer(error=str(error))
            self.host.drain()


def main(config: Dict[str, Any]) -> None:
    """Make this process untouchable, then serve."""
    # Without this, a command (of the same user) could write into these pipes and this memory through /proc/1.
    if ctypes.CDLL(None).prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) != 0:
        sys.exit("cannot protect process 1")
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # else an inside SIGINT would reach process 1
    os.makedirs(CONTROL, exist_ok=True)
    Guest(config).serve()
