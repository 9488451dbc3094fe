"""A sandbox's processes as the host's /proc shows them: who there is, what they use, and how to end some of them.

Works on the host's process numbers, from outside: inside, a fork bomb leaves no room to run anything.
"""

import contextlib
import os
import signal
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

_FREEZE_ROUNDS = 100


@dataclass(frozen=True)
class Process:
    """One process: `start` tells it from a later one of the same number; `cpu_s` counts its reaped children too."""

    pid: int
    parent: int
    start: int
    threads: int
    resident_bytes: int
    cpu_s: float


def inspect(pid: int) -> Process | None:
    """Read one process; None when it is gone (a zombie is: it uses nothing and cannot be killed)."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    fields = text.rpartition(")")[2].split()
    if fields[0] in "ZX":
        return None
    cpu_s = sum(int(ticks) for ticks in fields[11:15]) / os.sysconf("SC_CLK_TCK")
    resident = int(fields[21]) * os.sysconf("SC_PAGE_SIZE")
    return Process(pid, int(fields[1]), int(fields[19]), int(fields[17]), resident, cpu_s)


def children(pid: int) -> list[int]:
    """The children of all of a process's threads, zombies included."""
    found: list[int] = []
    with contextlib.suppress(OSError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            with contextlib.suppress(OSError):
                found += map(int, (task / "children").read_text(encoding="utf-8").split())
    return found


def inner_pid(pid: int) -> int | None:
    """The number that a process has in its own namespace; None when it is gone."""
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("NSpid:"):
                return int(line.split()[-1])
    return None


def descendants(root: int) -> Iterator[Process]:
    """Every live process below `root`, parents before children."""
    waiting = children(root)
    while waiting:
        pid = waiting.pop()
        process = inspect(pid)
        if process is not None:
            yield process
            waiting += children(pid)


def family(root: int, elders: Collection[Process], passing: Collection[int]) -> list[Process]:
    """The processes below `root` that came after `elders` and descend from none of them, but for those in `passing`.

    With the processes that lived before a command as elders, and the command shell as passing: what the command
    started. A worker that an older background process started meanwhile is not among them.
    """
    old = {(elder.pid, elder.start) for elder in elders}
    spared = {elder.pid for elder in elders} - set(passing)
    found = []
    for process in descendants(root):
        if process.parent in spared:
            spared.add(process.pid)
        elif (process.pid, process.start) not in old:
            found.append(process)
    return found


def kill(root: int, elders: Collection[Process], passing: Collection[int]) -> int:
    """Kill that family; returns how many. All are stopped before the first dies, so that none can fork meanwhile."""
    stopped: dict[int, Process] = {}
    for _ in range(_FREEZE_ROUNDS):
        fresh = [process for process in family(root, elders, passing) if process.pid not in stopped]
        if not fresh:
            break
        for process in fresh:
            stopped[process.pid] = process
            send(process.pid, signal.SIGSTOP)
    for pid in stopped:
        send(pid, signal.SIGKILL)
    return len(stopped)


def send(pid: int, number: int) -> None:
    """Send a signal to a process that may be gone already."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)
