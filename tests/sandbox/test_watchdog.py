"""The watchdog's arithmetic, and what the wire makes of broken messages; the limits themselves are in test_limits."""

import os
import subprocess

import pytest

from turnwise.sandbox.channel import Reply, parse_reply
from turnwise.sandbox.processes import Process, descendants, family, inspect
from turnwise.sandbox.watchdog import CpuAccount, heaviest_past


def test_cpu_is_earned_saved_and_owed() -> None:
    account = CpuAccount(cpus=0.5, now_s=100.0)
    assert account.debt_s(now_s=101.0, used_s=0.5) == 0.0
    assert account.debt_s(now_s=102.0, used_s=1.5) == 0.0  # half a second was saved up, and is spent now
    assert account.debt_s(now_s=103.0, used_s=2.5) == 1.0  # half a CPU second too much takes a second to earn
    assert account.debt_s(now_s=104.0, used_s=2.5) == 0.0
    assert account.debt_s(now_s=200.0, used_s=2.5) == 0.0
    assert account.debt_s(now_s=201.0, used_s=4.5) == 2.0  # only half a second can be saved


def test_cpu_used_by_processes_that_are_gone_is_forgotten() -> None:
    account = CpuAccount(cpus=1.0, now_s=0.0)
    account.debt_s(now_s=1.0, used_s=1.0)
    assert account.debt_s(now_s=2.0, used_s=0.2) == 0.0


def test_the_heaviest_goes_when_all_are_too_heavy() -> None:
    gone = [Process(2**22 + n, 1, 0, 1, size, 0.0) for n, size in enumerate((40, 70, 30))]
    assert heaviest_past(140, gone) is None
    assert heaviest_past(139, [gone[1]]) is None
    assert heaviest_past(139, gone) is gone[1]


def test_a_family_spares_what_elders_start() -> None:
    elder = subprocess.Popen(["sh", "-c", "sleep 50 & echo; wait"], stdout=subprocess.PIPE)
    assert elder.stdout is not None
    elder.stdout.readline()
    known = inspect(elder.pid)
    assert known is not None
    young = subprocess.Popen(["sleep", "50"])
    try:
        found = {process.pid for process in family(os.getpid(), [known], passing=set())}
        passing = {process.pid for process in family(os.getpid(), [known], passing={elder.pid})}
        sleeper = next(process.pid for process in descendants(elder.pid))
    finally:
        for process in (elder, young):
            process.kill()
            process.wait()
        elder.stdout.close()
    os.kill(sleeper, 9)
    assert young.pid in found
    assert not {elder.pid, sleeper} & found
    assert passing >= {young.pid, sleeper}


@pytest.mark.parametrize(
    ("message", "reply"),
    [
        (b'done 3\n/a b\ndeclare -x A="1\n2"\nend', Reply("done", 3, "/a b", 'declare -x A="1\n2"\n')),
        (b"died 137\n\nend", Reply("died", 137, "", "")),
        (b"done 3\n/a b\ndeclare -x A", None),
        (b"done", None),
        (b"", None),
        (b"done x\n/\nend", None),
    ],
)
def test_replies_that_were_cut_off_are_no_replies(message: bytes, reply: Reply | None) -> None:
    assert parse_reply(message) == reply
