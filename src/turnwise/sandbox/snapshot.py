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
_PACK_S = 600.0


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

    Packing is done as the root of the sandbox's user namespace, who may read every file in it. Raises SandboxError. A
    cancelled call leaves neither file nor process.
    """
    fd = os.memfd_create("sandbox-snapshot")
    try:
        await _pack(fd, monitor_pid, disk, layers)
    except BaseException:
        os.close(fd)
        raise
    return fd


async def _pack(fd: int, monitor_pid: int, disk: Path, layers: tuple[str, ...]) -> None:
    enter = ["nsenter", f"--target={monitor_pid}", "--user", "--mount", "--preserve-credentials"]
    pack = ["tar", "--create", "--sparse", "--numeric-owner", "--xattrs", "--xattrs-include=user.*"]
    process = await asyncio.create_subprocess_exec(
        *enter, *pack, f"--directory={disk}", *layers, stdout=fd, stderr=asyncio.subprocess.PIPE
    )
    try:
        _, errors = await asyncio.wait_for(process.communicate(), _PACK_S)
    except TimeoutError:
        raise SandboxError(f"cannot take a snapshot within {_PACK_S:.0f} s") from None
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode not in _GOOD_ENOUGH:
        raise SandboxError(f"cannot take a snapshot: {errors.decode(errors='replace').strip()[-300:]}")
