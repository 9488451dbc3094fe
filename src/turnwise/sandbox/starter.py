"""The starter: a small process, one per backend, whose children become sandboxes.

It runs by itself (`python -I -S - < starter.py`), so it imports the standard library only. What it does for every
order could be done by `unshare`, `mount` and `mkdir`, at two milliseconds each; here they are system calls in a fork of
a process that is small, has one thread, and is not the user's program.

When the other end of its connection closes, its owner is gone, however that came about: it removes the owner's folder
and ends, and the sandboxes, its children, are killed by the kernel.
"""

import ctypes
import gc
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any, NoReturn

_CLONE_NEWNS, _CLONE_NEWUSER = 0x0002_0000, 0x1000_0000
_MS_RDONLY, _MS_REMOUNT, _MS_BIND, _MS_REC, _MS_PRIVATE = 1, 32, 4096, 16384, 1 << 18
# statvfs flag → mount flag: a mount from outside the namespace must keep what it has.
_KEPT_FLAGS = {2: 2, 4: 4, 8: 8, 1024: 1024, 2048: 2048, 4096: 1 << 21}
_PR_SET_PDEATHSIG = 1
_MESSAGE_BYTES = 64


def _call(what: str, result: int) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")


def _mount(libc: Any, source: str, target: str, kind: str, flags: int = 0, options: str = "") -> None:
    text = [os.fsencode(word) for word in (source, target, kind, options)]
    _call(f"mount {kind or 'flags'} at {target}", libc.mount(*text[:3], ctypes.c_ulong(flags), text[3]))


def make_disk(libc: Any, order: dict[str, Any], archive_fd: int | None) -> None:
    """As root of a fresh user and mount namespace: the sandbox's disk, with its tree at `merged`, as the directory."""
    _mount(libc, "none", "/", "", _MS_REC | _MS_PRIVATE)
    if order["protect_devices"]:
        has = os.statvfs("/dev").f_flag
        kept = sum(flag for seen, flag in _KEPT_FLAGS.items() if has & seen)
        _mount(libc, "none", "/dev", "", _MS_REMOUNT | _MS_BIND | _MS_RDONLY | kept)
    disk_mb = order["disk_mb"]
    _mount(libc, "tmpfs", order["disk"], "tmpfs", options=f"size={disk_mb}m,nr_inodes={disk_mb * 1024},mode=755")
    os.chdir(order["disk"])
    for name in ("upper", "work", "merged", "tmp", "shm"):
        Path(name).mkdir()
    # Mount options have commas and colons of their own, which a root's name may have, too.
    Path("lower").symlink_to(order["root"])
    if archive_fd is not None:
        unpack = [
            "tar",
            "--extract",
            "--preserve-permissions",
            "--numeric-owner",
            "--xattrs",
            "--xattrs-include=user.*",
        ]
        # Opened anew, for forks made at the same time share the descriptor's position.
        with Path(f"/proc/self/fd/{archive_fd}").open("rb") as archive:
            subprocess.run(unpack, stdin=archive, check=True)
    if order["overlay"]:
        options = "lowerdir=lower,upperdir=upper,workdir=work,userxattr"
        _mount(libc, "overlay", "merged", "overlay", options=options)
    elif archive_fd is None:
        copy = ["cp", "--recursive", "--no-dereference", "--preserve=mode,links,timestamps", "lower/.", "merged"]
        subprocess.run(copy, check=True)
    # A sandbox that could make namespaces of its own could mount disks past its limit.
    Path("/proc/sys/user/max_user_namespaces").write_text("0")


def become_sandbox(libc: Any, order: dict[str, Any], fds: list[int], ready_fd: int, go_fd: int) -> NoReturn:
    """In the child: make the namespaces and the disk, then become bubblewrap. Complaints go to `fds[1]`."""
    requests_fd, errors_fd, *archive = fds
    starter_pid = os.getppid()
    try:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(requests_fd, 1)  # a number like any other: the scripts inside read from it
        os.dup2(errors_fd, 2)
        _call("unshare", libc.unshare(_CLONE_NEWUSER | _CLONE_NEWNS))
        os.write(ready_fd, b"r")
        go = os.read(go_fd, 1)
        _call("prctl", libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL))
        if not go or os.getppid() != starter_pid:
            raise OSError("the starter is gone")
        make_disk(libc, order, archive[0] if archive else None)
        os.closerange(3, os.sysconf("SC_OPEN_MAX"))
        os.execve(order["program"][0], order["program"], {"PATH": os.defpath})
    except Exception as error:
        os.write(errors_fd, f"\n{error}\n".encode())
    finally:
        os._exit(1)


def start(libc: Any, order: dict[str, Any], fds: list[int]) -> tuple[int, int]:
    """Fork a child that becomes a sandbox; returns its number and a descriptor of the process."""
    ready, ready_w = os.pipe()
    go, go_w = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(go_w)
        become_sandbox(libc, order, fds, ready_w, go)
    pidfd = os.pidfd_open(pid)
    os.close(ready_w)
    os.close(go)
    if os.read(ready, 1):
        for name in ("setgroups", "uid_map", "gid_map"):
            Path(f"/proc/{pid}/{name}").write_text(order[name])
        os.write(go_w, b"g")
    os.close(ready)
    os.close(go_w)
    return pid, pidfd


def serve(connection: socket.socket) -> None:
    """Carry out orders (a memory file with JSON comes first among the descriptors) until the owner is gone."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    libc = ctypes.CDLL(None, use_errno=True)
    gc.freeze()  # a collection in a child would copy the pages that it shares with the starter
    while True:
        message, fds, _, _ = socket.recv_fds(connection, _MESSAGE_BYTES, 4)
        if not message:
            return
        with os.fdopen(fds[0], "rb") as file:
            order = json.loads(file.read())
        try:
            pid, pidfd = start(libc, order, fds[1:])
        except OSError as error:
            connection.send(f"0 {error.strerror}".encode()[:_MESSAGE_BYTES])
        else:
            socket.send_fds(connection, [str(pid).encode()], [pidfd])
            os.close(pidfd)
        for fd in fds[1:]:
            os.close(fd)


if __name__ == "__main__":
    try:
        serve(socket.socket(fileno=int(sys.argv[1])))
    finally:
        shutil.rmtree(sys.argv[2], ignore_errors=True)
