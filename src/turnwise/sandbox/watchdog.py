"""Holds a live sandbox to its memory, CPU and process limits, where no control group can (ordinary users have none).

What holds where:
- memory: RLIMIT_DATA stops a single process at `memory_mb` (it sees MemoryError); the sum over processes is looked at
  every `TICK_S` and the largest process killed, so a herd can pass the limit for that long. Memory that only a memfd or
  a System V segment holds is not seen. Files in /tmp and /dev/shm count as disk.
- CPU: what ran ahead of `cpus` is paid back with everything stopped.
- processes: RLIMIT_NPROC within the sandbox's user namespace (threads count), since Linux 5.14. A sandbox that stays at
  its limit for `_CROWDED_S` (a fork bomb, no longer anybody's command) loses every process but its shell.
"""

import asyncio
import contextlib
import signal
import time
from collections.abc import Callable
from pathlib import Path

from turnwise.sandbox import processes
from turnwise.sandbox.processes import Process
from turnwise.types import Limits

TICK_S = 0.2
_CROWDED_S = 1.0
_CROWDED_BELOW = 2
_CPU_BURST_S = 0.5
_LONGEST_PAUSE_S = 1.0
_MIB = 1 << 20


def proportional_bytes(process: Process) -> int:
    """A process's memory with shared pages divided among their users; the resident size where that cannot be read."""
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{process.pid}/smaps_rollup").read_text(encoding="utf-8").splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
    return process.resident_bytes


def heaviest_past(limit_bytes: int, found: list[Process]) -> Process | None:
    """The process to kill when all together use more than `limit_bytes`, else None.

    >>> small, big = Process(2, 1, 0, 1, 40, 0.0), Process(3, 1, 0, 1, 70, 0.0)
    >>> heaviest_past(200, [small, big]) is None
    True
    """
    if sum(process.resident_bytes for process in found) <= limit_bytes:
        return None
    # Resident sizes count a page once per process that shares it: exact sums are dear, and taken only now.
    sizes = {process: proportional_bytes(process) for process in found}
    return max(found, key=sizes.__getitem__) if sum(sizes.values()) > limit_bytes else None


class CpuAccount:
    """CPU seconds earned at `cpus` a second and spent; at most `_CPU_BURST_S` are saved up.

    >>> account = CpuAccount(cpus=1.0, now_s=0.0)
    >>> account.debt_s(now_s=1.0, used_s=2.0)
    0.5
    """

    def __init__(self, cpus: float, now_s: float) -> None:
        self._cpus = cpus
        self._at_s = now_s
        self._used_s = 0.0
        self._saved_s = _CPU_BURST_S

    def debt_s(self, now_s: float, used_s: float) -> float:
        """How long to stop for, in seconds; `used_s` is the CPU time used since the beginning of time."""
        earned_s = (now_s - self._at_s) * self._cpus
        spent_s = max(0.0, used_s - self._used_s)
        self._saved_s = min(_CPU_BURST_S, self._saved_s + earned_s - spent_s)
        self._at_s, self._used_s = now_s, used_s
        return max(0.0, -self._saved_s / self._cpus)


class Watchdog:
    """Looks after one sandbox while it does anything; `shell_pid` says which process is its command shell by now."""

    def __init__(self, init_pid: int, shell_pid: Callable[[], int], limits: Limits) -> None:
        self._init_pid = init_pid
        self._shell_pid = shell_pid
        self._limits = limits
        self._cpu = CpuAccount(limits.cpus, time.monotonic())
        self._crowded_since: float | None = None
        self._awake = asyncio.Event()

    def wake(self) -> None:
        """A command starts."""
        self._awake.set()

    async def run(self) -> None:
        """Watch until cancelled; sleeps while nothing but the shell lives and no command starts."""
        while True:
            await self._awake.wait()
            await asyncio.sleep(TICK_S)
            found = list(processes.descendants(self._init_pid))
            if len(found) <= 1:
                self._awake.clear()
            self._check_memory(found)
            self._check_crowd(found)
            await self._check_cpu(found)

    def _check_memory(self, found: list[Process]) -> None:
        heaviest = heaviest_past(self._limits.memory_mb * _MIB, found)
        if heaviest is not None:
            processes.send(heaviest.pid, signal.SIGKILL)

    def _check_crowd(self, found: list[Process]) -> None:
        threads = sum(process.threads for process in found if process.pid != self._shell_pid())
        if threads < self._limits.processes - _CROWDED_BELOW:
            self._crowded_since = None
            return
        now_s = time.monotonic()
        self._crowded_since = self._crowded_since or now_s
        if now_s - self._crowded_since >= _CROWDED_S:
            shell = [process for process in found if process.pid == self._shell_pid()]
            processes.kill(self._init_pid, shell, {process.pid for process in shell})
            self._crowded_since = None

    async def _check_cpu(self, found: list[Process]) -> None:
        init = processes.inspect(self._init_pid)
        used_s = sum(process.cpu_s for process in found) + (init.cpu_s if init else 0.0)
        debt_s = self._cpu.debt_s(time.monotonic(), used_s)
        if debt_s == 0:
            return
        for process in found:
            processes.send(process.pid, signal.SIGSTOP)
        try:
            await asyncio.sleep(min(debt_s, _LONGEST_PAUSE_S))
        finally:
            for process in found:
                processes.send(process.pid, signal.SIGCONT)
