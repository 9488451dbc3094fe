"""Starts the processes of a sandbox: a fork of the starter → bubblewrap → scripts/init.sh → scripts/shell.sh.

Who the commands run as:
- started by an ordinary user: that user, seen as root inside; no capabilities.
- started by the host's root: a user of the sandbox (`agent`) that is nobody on the host, because the kernel exempts
  the host's root from process limits. It may read, write and own all files of the sandbox as root would
  (CAP_DAC_OVERRIDE, CAP_FOWNER, CAP_CHOWN within its user namespace), for the repository there belongs to root.
"""

import asyncio
import contextlib
import os
import re
import shutil
import signal
import time
from dataclasses import dataclass
from pathlib import Path

from turnwise.errors import ImageError, InputError, SandboxError, TurnwiseError
from turnwise.sandbox import processes
from turnwise.sandbox.starter import AGENT, is_host_root
from turnwise.sandbox.state import Workshop, source
from turnwise.sandbox.view import CONTROL, ground, host_arguments, masked, python_prefixes, spec_arguments, write_etc
from turnwise.types import Limits, SandboxSpec

_ROOT_CAPABILITIES = [
    argument
    for name in ("SETUID", "SETGID", "SETPCAP", "CHOWN", "DAC_OVERRIDE", "FOWNER")
    for argument in ("--cap-add", f"CAP_{name}")
]
_KEPT_CAPABILITIES = "-all,+chown,+dac_override,+fowner"
_NAMESPACES = ("--unshare-pid", "--unshare-ipc", "--unshare-uts", "--hostname", "sandbox", "--die-with-parent")
# Process 1 and the command shell count too.
_OWN_PROCESSES = 2
_STOP_CHECKS, _STOP_CHECK_S = 40, 0.0005
_END_CHECKS, _END_CHECK_S = 500, 0.02
_LIMITS_PER_NAMESPACE_SINCE = (5, 14)
_OVERLAY_ON_TMPFS_SINCE = (6, 6)


def kernel_version() -> tuple[int, int]:
    """The running kernel's major and minor version."""
    major, minor = os.uname().release.split(".")[:2]
    return int(major), int("".join(filter(str.isdigit, minor)))


def _tool(name: str, package: str) -> str:
    path = shutil.which(name)
    if path is None:
        raise InputError(f"sandboxes need `{name}`, which is not installed: apt-get install {package} (or the like)")
    return path


def start_error(complaint: str) -> TurnwiseError:
    """What to raise for a sandbox that did not start: InputError when this machine starts none, else SandboxError."""
    if re.search(r"Errno \d+\] (unshare|mount (flags|tmpfs))|Creating new namespace failed", complaint) is None:
        return SandboxError(f"the sandbox did not start: {complaint}")
    return InputError(
        f"this machine refuses unprivileged user namespaces, which sandboxes need ({complaint}): allow them with "
        "`sysctl user.max_user_namespaces=10000`, on Debian and Ubuntu also `kernel.unprivileged_userns_clone=1` and "
        "`kernel.apparmor_restrict_unprivileged_userns=0`; in a container, run it with `--privileged`"
    )


def _shell_arguments(limits: Limits) -> list[str]:
    counted = kernel_version() >= _LIMITS_PER_NAMESPACE_SINCE
    count = str(limits.processes + _OWN_PROCESSES) if counted else "unlimited"
    return [count, str(limits.memory_mb * 1024), str(limits.disk_mb * 1024)]


@dataclass(frozen=True)
class Guest:
    """A started sandbox: the starter's child (bubblewrap, before long) on the host, and where its errors go."""

    pid: int
    pidfd: int
    errors_fd: int

    def init_pid(self) -> int:
        """The host's number of the sandbox's process 1, bubblewrap's only child; 0 before it is there."""
        return next(iter(processes.children(self.pid)), 0)

    def kill(self) -> None:
        """End the sandbox by its process 1: when bubblewrap is gone after that, everything is.

        Bubblewrap is stopped meanwhile. Killed between its fork and the word that its child waits for, it would leave
        a process that waits for ever. One that does not stop yet is in the kernel, and left for the next call.
        """
        if not (self._signal(signal.SIGSTOP) and self._stops()):
            return
        init_pid = self.init_pid()
        if init_pid:
            processes.send(init_pid, signal.SIGKILL)
        self._signal(signal.SIGCONT if init_pid else signal.SIGKILL)

    def _signal(self, number: int) -> bool:
        """False where bubblewrap is gone."""
        try:
            signal.pidfd_send_signal(self.pidfd, number)
        except ProcessLookupError:
            return False
        return True

    def _stops(self) -> bool:
        for _ in range(_STOP_CHECKS):
            if self._state() in ("T", "t"):
                return True
            time.sleep(_STOP_CHECK_S)
        return False

    def _state(self) -> str:
        """The letter that the kernel has for what bubblewrap is doing; empty when it is gone."""
        with contextlib.suppress(OSError):
            return (
                Path(f"/proc/{self.pid}/stat")
                .read_text(encoding="utf-8", errors="replace")
                .rpartition(")")[2]
                .split()[0]
            )
        return ""

    def close(self) -> None:
        """Let go of a sandbox that has ended, or should have."""
        self.kill()
        os.close(self.pidfd)
        os.close(self.errors_fd)

    async def end(self) -> None:
        """End the sandbox and let go of it, wherever in its start it is."""
        for _ in range(_END_CHECKS):
            self.kill()
            if not self._signal(0):
                break
            await asyncio.sleep(_END_CHECK_S)
        self.close()

    def error(self) -> str:
        """What the start complained about, in one line."""
        os.lseek(self.errors_fd, 0, os.SEEK_SET)
        lines = os.read(self.errors_fd, 4096).decode(errors="replace").strip().splitlines()
        return lines[-1] if lines else "no message"


class Launcher:
    """Knows everything about starting that does not change from one sandbox to the next. Raises InputError for tools
    that are not there."""

    def __init__(self, workshop: Workshop) -> None:
        self._workshop = workshop
        folder = workshop.folder
        self._bwrap = _tool("bwrap", "bubblewrap")
        self._setpriv = _tool("setpriv", "util-linux")
        self._as_root = is_host_root()
        _tool("nsenter", "util-linux")
        _tool("tar", "tar")
        # Where every sandbox mounts its disk, each in a mount namespace of its own.
        self.disk = folder / "disk"
        self.disk.mkdir()
        self._empty = folder / "empty"
        self._empty.mkdir()
        self._masked = masked(python_prefixes())
        write_etc(folder / "etc")
        self._host_arguments = host_arguments(folder / "etc")

    def layers(self, root: Path) -> tuple[str, ...]:
        """The directories of a sandbox's disk that make a snapshot."""
        return ("upper" if self._can_overlay(root) else "merged", "tmp", "shm")

    def check(self, spec: SandboxSpec) -> None:
        """Raises InputError for a spec that no sandbox can be made of, ImageError where that is its image's fault."""
        root = ground(spec)
        if not root.is_dir() and spec.image:
            raise ImageError(f"`local` runs images that `unpack_image` unpacked into a folder, and {root} is none")
        if not root.is_dir():
            raise InputError(f"a sandbox needs a directory as its root, and {root} is none")
        for tool in ("bash", *(("setpriv",) if self._as_root else ())):
            if spec.image and not any((root / folder / tool).exists() for folder in ("usr/bin", "bin")):
                raise ImageError(f"the image unpacked at {root} has no {tool}, which sandboxes need")

    def _can_overlay(self, root: Path) -> bool:
        """False where the sandbox's user could not change the files of an overlay over `root`: it gets a copy instead,
        which takes time and disk by the repository's size."""
        if kernel_version() < _OVERLAY_ON_TMPFS_SINCE:
            return False
        owner = root.stat()
        return self._as_root or (owner.st_uid, owner.st_gid) == (os.geteuid(), os.getegid())

    async def start(
        self, spec: SandboxSpec, control: Path, request_fds: tuple[int, int], archive_fd: int | None
    ) -> Guest:
        """Start a sandbox, from a snapshot's archive if there is one. Its process 1 and its shells take requests from
        `request_fds`.

        The scripts are put into the control directory. Cancelled, it returns when what it started is gone. Raises
        SandboxError, OSError.
        """
        for name in ("init", "loop", "shell"):
            (control / name).write_text(source(f"scripts/{name}.sh"), encoding="utf-8")
        starting = asyncio.ensure_future(self._start(spec, control, request_fds, archive_fd))
        try:
            return await asyncio.shield(starting)
        except asyncio.CancelledError:
            with contextlib.suppress(SandboxError, OSError):
                await (await starting).end()
            raise

    async def _start(
        self, spec: SandboxSpec, control: Path, request_fds: tuple[int, int], archive_fd: int | None
    ) -> Guest:
        errors_fd = os.memfd_create("sandbox-errors")
        try:
            fds = [*request_fds, errors_fd, *([] if archive_fd is None else [archive_fd])]
            pid, pidfd = await self._workshop.order(self._order(spec, control), fds)
        except BaseException:
            os.close(errors_fd)
            raise
        return Guest(pid, pidfd, errors_fd)

    def _order(self, spec: SandboxSpec, control: Path) -> dict[str, object]:
        return {
            "disk": str(self.disk),
            "root": str(ground(spec).resolve()),
            "disk_mb": spec.limits.disk_mb,
            "overlay": self._can_overlay(ground(spec)),
            # The agent of the host's root may change what root owns, so it must get the device nodes read-only.
            "protect_devices": self._as_root,
            "empty": str(self._empty),
            "masked": self._masked,
            "program": self._program(spec, control),
        }

    def _program(self, spec: SandboxSpec, control: Path) -> list[str]:
        bwrap = [self._bwrap, *_NAMESPACES, "--as-pid-1", "--cap-drop", "ALL"]
        view = [*([] if spec.image else self._host_arguments), *spec_arguments(spec, control)]
        guest = ["/bin/bash", "--noprofile", "--norc", f"{CONTROL}/init", *_shell_arguments(spec.limits)]
        if not self._as_root:
            return [*bwrap, *view, *guest]
        become = [self._setpriv, "--reuid", f"{AGENT}", "--regid", f"{AGENT}", "--clear-groups"]
        # Without this bit, access(2) would go by the agent's number and deny what its capabilities allow.
        become += ["--securebits=+no_setuid_fixup"]
        become += [f"--{kind}={_KEPT_CAPABILITIES}" for kind in ("inh-caps", "ambient-caps", "bounding-set")]
        return [*bwrap, *_ROOT_CAPABILITIES, *view, *guest, *become]
