"""One writer a run: an advisory lock that the kernel drops when its process ends, however it ends."""

import fcntl
import os
from pathlib import Path
from typing import IO

from turnwise.errors import StoreError


def lock_run(journal_path: Path) -> IO[str]:
    """Take the run's lock; held while the returned file is open. Raises StoreError naming the process that has it."""
    path = journal_path.with_name(journal_path.name + ".lock")
    handle = path.open("a+")
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        handle.seek(0)
        holder = handle.read().strip() or "unknown"
        handle.close()
        raise StoreError(f"{journal_path.parent} is being written by another process (pid {holder})") from error
    handle.truncate(0)
    handle.write(str(os.getpid()))
    handle.flush()
    return handle
