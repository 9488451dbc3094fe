"""What process 1 does in its children, before they become other programs."""

import contextlib
import os
import signal
from typing import NoReturn


def inherit(*fds: int) -> None:
    """In a child: keep these descriptors alone, numbered from 0, and no signal handling."""
    for number in (signal.SIGPIPE, signal.SIGXFSZ, signal.SIGCHLD):
        signal.signal(number, signal.SIG_DFL)
    for fd, inherited in enumerate(fds):
        os.dup2(inherited, fd)
    for name in os.listdir("/proc/self/fd"):  # up to the limit, old Pythons would close a thousand million
        if int(name) >= len(fds):
            os.closerange(int(name), int(name) + 1)  # also where it is closed already


def become_sh(script: bytes, output: int, directory: str) -> NoReturn:
    """In a child: become a shell that runs `script` in `directory`, where there is still one."""
    try:
        with contextlib.suppress(OSError):
            os.chdir(directory)
        inherit(os.open("/dev/null", os.O_RDONLY), output, output)
        os.setsid()
        os.execve("/bin/sh", [b"sh", b"-c", script], {"PATH": "/usr/bin:/bin:/usr/local/bin", "LC_ALL": "C"})
    finally:
        os._exit(127)
