"""Who lives in the container, as its /proc shows it, and how to end some of them. Without a fork: a fork bomb leaves no
room for one."""

import contextlib
import os
import signal
from typing import Dict, List, NamedTuple, Set

_FREEZE_ROUNDS = 100


class Process(NamedTuple):
    """One process: `start` tells it from a later one of the same number."""

    pid: int
    parent: int
    start: int
    threads: int


def processes() -> List[Process]:
    """Everything that lives in the container but this process; zombies do not."""
    found = []
    for name in os.listdir("/proc"):
        if name.isdigit() and int(name) != os.getpid():
            try:
                with open("/proc/" + name + "/stat", encoding="utf-8", errors="replace") as file:
                    fields = file.read().rpartition(")")[2].split()
            except OSError:
                continue
            if fields[0] not in "ZX":
                found.append(Process(int(name), int(fields[1]), int(fields[19]), int(fields[17])))
    return found


def family(elders: List[Process], passing: Set[int]) -> List[Process]:
    """The processes that came after `elders` and descend from none of them, but for those in `passing`."""
    old = {(elder.pid, elder.start) for elder in elders}
    spared = {elder.pid for elder in elders} - passing
    below: Dict[int, List[Process]] = {}
    for process in processes():
        below.setdefault(process.parent, []).append(process)
    found, waiting = [], list(below.get(os.getpid(), []))
    while waiting:
        process = waiting.pop()
        if process.parent in spared:
            spared.add(process.pid)
        elif (process.pid, process.start) not in old:
            found.append(process)
        waiting += below.get(process.pid, [])
    return found


def kill(elders: List[Process], passing: Set[int]) -> None:
    """Kill that family. All are stopped before the first dies, so that none can fork meanwhile."""
    stopped: Set[int] = set()
    for _ in range(_FREEZE_ROUNDS):
        fresh = [process.pid for process in family(elders, passing) if process.pid not in stopped]
        if not fresh:
            break
        for pid in fresh:
            stopped.add(pid)
            send(pid, signal.SIGSTOP)
    for pid in stopped:
        send(pid, signal.SIGKILL)


def send(pid: int, number: int) -> None:
    """Send a signal to a process that may be gone already."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)
