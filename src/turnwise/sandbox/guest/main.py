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
from typing import Any, Callable, Dict, List, NoReturn, Optional, Tuple

from turnwise.sandbox.guest.children import become_sh, inherit
from turnwise.sandbox.guest.files import Baseline, unpack
from turnwise.sandbox.guest.processes import Process, kill, processes, send
from turnwise.sandbox.guest.replies import Reply, parse_reply
from turnwise.sandbox.guest.streams import PIPE_BYTES, Host, Output

CONTROL = "/run/turnwise"
# More than an environment that programs can be started in; what is longer was not written by the shell.
REPLY_BYTES = 1 << 22
PR_SET_DUMPABLE = 4
SETTLE_S, DEATH_S = 0.25, 10.0
WATCH_S, CROWDED_S, CROWDED_BELOW = 0.2, 1.0, 2
IDLE_S = 30.0
TIMED_OUT = 124


class Guest:
    """The container's shell and what is known of it."""

    def __init__(self, config: Dict[str, Any]) -> None:
        self.config = config
        self.host = Host()
        self.shell_pid = 0
        self.apart, self.apart_status = 0, 0  # the process that runs apart from the shell, and how it ended
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
            code = 128 + os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)
            if pid == self.apart:
                self.apart, self.apart_status = 0, code
            if pid == self.shell_pid:
                self.take_replies()  # its last words, said before it died
                self.shell_pid = 0
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
        self.shell_pid = self.fork()
        if self.shell_pid == 0:
            self.become_shell(request_read)
        os.close(request_read)
        if self.wait(DEATH_S, ("ready", "died")) is None or self.shell_pid == 0:
            raise OSError("bash did not start")
        if self.state.exports or self.state.directory != self.config["workdir"]:
            self.restore()

    def fork(self) -> int:
        """Fork, as soon as there is room for a process."""
        deadline = time.monotonic() + DEATH_S
        while True:
            try:
                return os.fork()
            except OSError as error:
                if error.errno != errno.EAGAIN or time.monotonic() > deadline:
                    raise
            self.turn(WATCH_S)  # a fork bomb took all the room; `watch` ends it

    def become_shell(self, request_read: int) -> NoReturn:
        """In the child: become bash."""
        try:
            null = os.open("/dev/null", os.O_RDWR)
            inherit(null, null, null, request_read)
            os.chdir(self.config["workdir"])
            limits = ["unlimited", str(self.config["data_kb"]), str(self.config["file_kb"])]
            os.execvp("bash", ["bash", "--noprofile", "--norc", "-c", self.config["loop"], "bash", *limits])
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
            os.write(self.request, b"run\n" + self.key.encode())
        reply = self.wait(timeout_s)
        timed_out = reply is None
        if reply is None:
            reply = self.interrupt(elders)
        return ran(output, reply.status, time.monotonic() - started, timed_out)

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
        self.host.answer(output, directory=self.state.directory, **told)

    def run_apart(self, request: Dict[str, Any]) -> None:
        """A script, by a /bin/sh that has nothing of the shell's state."""
        script = self.host.read()
        elders = processes()
        receive, send_to = os.pipe()
        os.set_blocking(receive, False)
        started, deadline = time.monotonic(), time.monotonic() + request["timeout_s"]
        pid = self.apart = self.fork()
        if pid == 0:
            become_sh(script, send_to, self.config["workdir"])
        os.close(send_to)
        output = Output(receive, request["limit"])
        self.outputs.append(output)
        self.wait_for_apart(deadline)
        timed_out = self.apart == pid
        if timed_out:
            kill(elders, set())
            self.wait_for_apart(time.monotonic() + DEATH_S)
        told, kept = ran(output, self.apart_status, time.monotonic() - started, timed_out)
        self.host.answer(kept, **told)

    def wait_for_apart(self, deadline: float) -> None:
        """Wait until the process that runs apart has ended; gives up at `deadline`."""
        while self.apart and time.monotonic() < deadline:
            self.turn(min(WATCH_S, max(0.0, deadline - time.monotonic())))

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
            "run_apart": self.run_apart,
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


def ran(output: Output, status: int, duration_s: float, timed_out: bool) -> Tuple[Dict[str, Any], bytes]:
    """What became of something that was run: its fields, and the head and tail of its output."""
    head, tail, left_out = output.finish()
    told = {"status": status, "duration_s": duration_s, "timed_out": timed_out}
    return dict(told, head=len(head), left_out=left_out), head + tail


def main(config: Dict[str, Any]) -> None:
    """Make this process untouchable, then serve."""
    # Without this, a command (of the same user) could write into these pipes and this memory through /proc/1.
    if ctypes.CDLL(None).prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) != 0:
        sys.exit("cannot protect process 1")
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # else an inside SIGINT would reach process 1
    os.makedirs(CONTROL, exist_ok=True)
    Guest(config).serve()
