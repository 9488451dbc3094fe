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
import select
import shutil
import signal
import socket
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

_CLONE_NEWNS, _CLONE_NEWUSER = 0x0002_0000, 0x1000_0000
_MS_RDONLY, _MS_REMOUNT, _MS_BIND, _MS_REC, _MS_PRIVATE = 1, 32, 4096, 16384, 1 << 18
# statvfs flag → mount flag: a mount from outside the namespace must keep what it has.
_KEPT_FLAGS = {2: 2, 4: 4, 8: 8, 1024: 1024, 2048: 2048, 4096: 1 << 21}
_PR_SET_PDEATHSIG = 1
_MESSAGE_BYTES, _FDS = 64, 5
_UNSHARED, _REFUSED = b"u", b"r"
# Whom commands run as where the host's root started the sandbox; elsewhere they run as root inside.
AGENT = 65533
# The agent's number on the host: far from users', containers' and systemd's ranges.
_AGENT_ON_HOST = 1_964_000_000
# Every other user of the host below `nobody` is itself inside, so that the agent can change whoever's repository.
_AGENTS_MAP = f"0 0 {AGENT}\n{AGENT} {_AGENT_ON_HOST} 1\n{AGENT + 1} {AGENT + 1} 1\n"


def is_host_root() -> bool:
    """True for the real root; False for an ordinary user and for the root of a user namespace."""
    return os.geteuid() == 0 and Path("/proc/self/uid_map").read_text(encoding="utf-8").split() == [
        "0",
        "0",
        "4294967295",
    ]


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
    for path in order["masked"]:
        _mount(libc, order["empty"], path, "", _MS_BIND)
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
    Path("/proc/sys/user/max_user_namespaces").write_text("0", encoding="utf-8")


@dataclass
class Spare:
    """A child that has its namespaces and users already, and waits for the order that says what to become."""

    pid: int
    pidfd: int
    orders: socket.socket


def prepare(libc: Any) -> Spare:
    """Fork a spare. Done between two orders, so that an order need not wait for it."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    starter_pid = os.getpid()
    pid = os.fork()
    if pid == 0:
        ours.close()
        become_sandbox(libc, theirs, starter_pid)
    pidfd = os.pidfd_open(pid)
    theirs.close()
    if ours.recv(1) == _UNSHARED:
        users = _AGENTS_MAP if is_host_root() else "0 {} 1"
        Path(f"/proc/{pid}/setgroups").write_text("allow" if is_host_root() else "deny", encoding="utf-8")
        Path(f"/proc/{pid}/uid_map").write_text(users.format(os.geteuid()), encoding="utf-8")
        Path(f"/proc/{pid}/gid_map").write_text(users.format(os.getegid()), encoding="utf-8")
    return Spare(pid, pidfd, ours)


def become_sandbox(libc: Any, orders: socket.socket, starter_pid: int) -> NoReturn:
    """In the child: make the namespaces, take the order, make the disk, become bubblewrap."""
    errors_fd = os.open(os.devnull, os.O_WRONLY)
    try:
        for number in (signal.SIGCHLD, signal.SIGPIPE, signal.SIGXFSZ):  # Python ignores the last two
            signal.signal(number, signal.SIG_DFL)
        unshared = libc.unshare(_CLONE_NEWUSER | _CLONE_NEWNS)
        refused = ctypes.get_errno()
        orders.send(_REFUSED if unshared else _UNSHARED)
        _, (order_fd, init_fd, shell_fd, errors_fd, *archive), *_ = socket.recv_fds(orders, _MESSAGE_BYTES, _FDS)
        if unshared:
            raise OSError(refused, f"unshare: {os.strerror(refused)}")
        _call("prctl", libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL))
        if os.getppid() != starter_pid:
            raise OSError("the starter is gone")
        with os.fdopen(order_fd, "rb") as file:
            order = json.loads(file.read())
        os.dup2(shell_fd, 0)
        os.dup2(init_fd, 1)  # a number like any other: the scripts inside read from both
        os.dup2(errors_fd, 2)
        make_disk(libc, order, archive[0] if archive else None)
        os.closerange(3, os.sysconf("SC_OPEN_MAX"))
        os.execve(order["program"][0], order["program"], {"PATH": os.defpath})
    except Exception as error:
        os.write(errors_fd, f"\n{error}\n".encode())
    finally:
        os._exit(1)


def serve(connection: socket.socket) -> None:
    """Carry out orders until the owner is gone: pass each on to a spare, answer with its number and a descriptor.

    An order is four or five descriptors: a memory file with JSON, where the sandbox's process 1 takes requests from,
    where its shells do, where its start may complain, and the archive to start from.
    """
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    libc = ctypes.CDLL(None, use_errno=True)
    gc.freeze()  # a collection in a child would copy the pages that it shares with the starter
    # A closed connection would not do: a fork of the owner may hold it open.
    owner = os.pidfd_open(os.getppid())
    watched: list[Any] = [connection, owner]
    spare = prepare(libc)
    while True:
        if owner in select.select(watched, [], [])[0]:
            return
        message, fds, _, _ = socket.recv_fds(connection, _MESSAGE_BYTES, _FDS)
        if not message:
            return
        try:
            socket.send_fds(spare.orders, [message], fds)
        except OSError:  # somebody killed the spare
            spare = prepare(libc)
            socket.send_fds(spare.orders, [message], fds)
        socket.send_fds(connection, [str(spare.pid).encode()], [spare.pidfd])
        for fd in (*fds, spare.pidfd):
            os.close(fd)
        spare.orders.close()
        spare = prepare(libc)


if __name__ == "__main__":
    try:
        serve(socket.socket(fileno=int(sys.argv[1])))
    finally:
        shutil.rmtree(sys.argv[2], ignore_errors=True)
