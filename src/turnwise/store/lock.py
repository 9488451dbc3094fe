"""One writer a run: an advisory lock that the kernel drops when its process ends, however it ends."""

import fcntl
import os
from pathlib import Path
from typing import IO

from turnwise.errors import StoreError


def lock_run(guarded: Path) -> IO[str]:
    """Take the lock of a run's journal, or of another file with one writer; held while the returned file is open.

    Raises StoreError naming the process that has it.
    """
    path = guarded.with_name(guarded.name + ".lock")
    handle = path.open("a+", encoding="utf-8")
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        handle.seek(0)
        holder = handle.read().strip() or "unknown"
        handle.close()
        raise StoreError(f"{guarded} is being written by another process (pid {holder})") from error
    handle.truncate(0)
    handle.write(str(os.getpid()))
    handle.flush()
    return handle
