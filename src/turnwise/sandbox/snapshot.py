"""Snapshots: the files that a sandbox changed, as a tar archive in memory.

Only the overlay's upper layer (whiteouts and opaque marks included), /tmp and /dev/shm are copied, so that a snapshot
costs what changed, whatever the size of the repository. A fork unpacks it before its overlay is mounted. The archive
is a memory file: it has no name, so nothing of it can stay behind.
"""

import asyncio
import os
from dataclasses import dataclass
from pathlib import Path

from turnwise.errors import SandboxError
from turnwise.sandbox.channel import Reply
from turnwise.types import SandboxSpec

# A file that changes while it is read is the doing of a background process; tar says so with status 1.
_GOOD_ENOUGH = (0, 1)


@dataclass(frozen=True)
class Snapshot:
    """What `fork` starts from: the archive, and the directory and environment that the shell was in."""

    spec: SandboxSpec
    archive_fd: int
    state: Reply

    def close(self) -> None:
        """Let go of the archive."""
        os.close(self.archive_fd)


async def archive(monitor_pid: int, disk: Path, layers: tuple[str, ...]) -> int:
    """Pack `layers` of the disk that the process `monitor_pid` (bubblewrap's) sees at `disk`; returns a memory file.

    Packing is done as the root of the sandbox's user namespace, who may read every file in it. Raises SandboxError.
    """
    fd = os.memfd_create("sandbox-snapshot")
    enter = ["nsenter", f"--target={monitor_pid}", "--user", "--mount", "--preserve-credentials"]
    pack = ["tar", "--create", "--sparse", "--numeric-owner", "--xattrs", "--xattrs-include=user.*"]
    process = await asyncio.create_subprocess_exec(
        *enter, *pack, f"--directory={disk}", *layers, stdout=fd, stderr=asyncio.subprocess.PIPE
    )
    _, errors = await process.communicate()
    if process.returncode not in _GOOD_ENOUGH:
        os.close(fd)
        raise SandboxError(f"cannot take a snapshot: {errors.decode(errors='replace').strip()[-300:]}")
    return fd
