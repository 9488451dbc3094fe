"""Waiting for a process only as long as building is not stopped."""

import subprocess
import threading
import time
from typing import AnyStr

from turnwise.tasks.cache import BuildingStopped

_LOOK_EVERY_S = 0.5


def watch(
    process: subprocess.Popen[AnyStr], timeout_s: float, stopped: threading.Event, stdin: AnyStr | None = None
) -> tuple[AnyStr, AnyStr]:
    """What a process says on stdout and stderr once it is given `stdin`; it is left running when this raises.

    Raises BuildingStopped when `stopped` is set, subprocess.TimeoutExpired after `timeout_s`.
    """
    deadline = time.monotonic() + timeout_s
    while not stopped.is_set():
        try:
            return process.communicate(stdin, timeout=_LOOK_EVERY_S)
        except subprocess.TimeoutExpired:
            stdin = None  # the first call keeps what is still to be sent
            if time.monotonic() > deadline:
                raise
    raise BuildingStopped
