"""Who made a folder or a container, in words that fit a label, and whether that process is gone.

Containers end by themselves when the line to their process 1 does; labels are for what never got that far (created and
not started, when their owner was killed) and for snapshots.
"""

import contextlib
import os
import re
from pathlib import Path

LABEL = "turnwise.owner"


def start_time(pid: int) -> str | None:
    """When a process started, in clock ticks since boot, as text; None when there is no such process."""
    with contextlib.suppress(OSError):
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
        return stat.rpartition(")")[2].split()[19]
    return None


def _place() -> str:
    """This boot of this machine, and the namespace that process numbers are of: elsewhere they mean other processes."""
    boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="utf-8").strip().replace("-", "")
    return f"{boot}.{Path('/proc/self/ns/pid').stat().st_ino}"


def owner() -> str:
    """This process: `BOOT.NAMESPACE.PID.STARTTIME`, at most 63 characters, fit for a Kubernetes label, too."""
    return f"{_place()}.{os.getpid()}.{start_time(os.getpid())}"


def is_gone(label: str) -> bool:
    """True when the owner was a process of this place and lives no more; False for the living and for strangers.

    >>> is_gone(owner())
    False
    """
    place, _, process = label.rpartition(".")[0].rpartition(".")
    started = label.rpartition(".")[2]
    if place != _place() or re.fullmatch(r"\d+", process) is None:
        return False
    return start_time(int(process)) != started
