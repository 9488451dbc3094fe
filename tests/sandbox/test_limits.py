"""Limits hold against what an agent may do by mistake or on purpose, and the sandbox stays usable afterwards."""

import tracemalloc
from dataclasses import replace

import pytest

from turnwise.errors import SandboxError
from turnwise.sandbox import Sandbox, SandboxBackend
from turnwise.types import Limits, SandboxSpec


async def alive(sandbox: Sandbox) -> bool:
    return (await sandbox.exec("/bin/echo alive", timeout_s=30)).output.endswith("alive\n")


async def processes(sandbox: Sandbox) -> int:
    """How many processes are left, with the few that it takes to count them."""
    return int((await sandbox.exec("ls /proc | grep -c '^[0-9]'", timeout_s=30)).output)


async def test_a_fork_bomb_in_the_foreground_is_timed_out(isolated: Sandbox) -> None:
    result = await isolated.exec("bomb() { bomb | bomb; }; bomb", timeout_s=1.0)
    assert result.timed_out
    assert await processes(isolated) <= 5


async def test_a_fork_bomb_in_the_background_is_ended(isolated: Sandbox) -> None:
    assert (await isolated.exec("bomb() { bomb | bomb & }; bomb", timeout_s=10)).exit_code == 0
    await isolated.exec("sleep 3", timeout_s=20)
    assert await alive(isolated)
    assert await processes(isolated) <= 5


async def test_the_number_of_processes_is_bound(isolated: Sandbox, spec: SandboxSpec) -> None:
    count = (
        "import os, signal\nn = 0\ntry:\n    while n < 500:\n        if os.fork() == 0: signal.pause()\n"
        "        n += 1\nexcept BlockingIOError: pass\nprint(n)\nos.killpg(0, 9)"
    )
    result = await isolated.exec(f'setsid -w python3 -uc "{count}" | cat', timeout_s=20)
    assert 0 < int(result.output) <= spec.limits.processes
    assert await alive(isolated)


async def test_a_process_past_the_memory_limit_gets_none(isolated: Sandbox) -> None:
    result = await isolated.exec("python3 -c 'x = bytearray(2**30); print(len(x))'", timeout_s=20)
    assert result.exit_code == 1
    assert "MemoryError" in result.output
    assert await alive(isolated)


async def test_a_herd_past_the_memory_limit_loses_members(isolated: Sandbox) -> None:
    herd = (
        "import os, time\npids = []\nfor i in range(4):\n    pid = os.fork()\n    if pid == 0:\n"
        "        x = b'x' * (100 << 20); time.sleep(30); os._exit(0)\n    pids.append(pid)\n"
        "print(os.waitpid(-1, 0)[1]); os.killpg(0, 9)"
    )
    result = await isolated.exec(f'setsid -w python3 -uc "{herd}" | cat', timeout_s=20)
    assert result.output == "9\n"
    assert not result.timed_out
    assert await alive(isolated)


async def test_a_full_disk_fails_writes_only(on_host: Sandbox) -> None:
    result = await on_host.exec("for d in . /tmp /dev/shm; do head -c 12M /dev/zero > $d/fill; done", timeout_s=20)
    assert "No space left" in result.output
    assert await alive(on_host)
    with pytest.raises(SandboxError, match="No space left"):
        await on_host.write("more", b"x" * 1_000_000)
    result = await on_host.exec("export A=1; cd pkg; exit 2", timeout_s=20)
    assert result.exit_code == 2
    assert (await on_host.exec("pwd; echo $A; rm /tmp/fill /testbed/fill", timeout_s=20)).output == "/testbed/pkg\n1\n"
    await on_host.write("more", b"x" * 1_000_000)
    assert len(await on_host.read("more")) == 1_000_000


async def test_a_sea_of_empty_files_fills_the_disk_too(on_host: Sandbox) -> None:
    result = await on_host.exec("mkdir many; cd many; seq 20000 | xargs -n 5000 touch", timeout_s=60)
    assert "No space left" in result.output
    assert await alive(on_host)


async def test_a_sleep_past_its_timeout_is_ended(isolated: Sandbox) -> None:
    result = await isolated.exec("sleep 6000", timeout_s=0.5)  # waited for, it would outlast the test's own time-out
    assert result.timed_out
    assert await alive(isolated)


async def test_a_command_that_ignores_signals_ends_on_time(isolated: Sandbox) -> None:
    result = await isolated.exec("trap '' INT TERM HUP; while :; do sleep 1; done", timeout_s=0.5)
    assert result.timed_out
    assert await alive(isolated)


async def test_endless_output_neither_blocks_nor_grows(isolated: Sandbox, spec: SandboxSpec) -> None:
    result = await isolated.exec("yes", timeout_s=1.5)
    assert result.timed_out
    assert 0 < result.left_out_bytes < 100_000_000, "what is thrown away is read slowly: yes writes gigabytes a second"
    assert len(result.output) == spec.limits.output_bytes
    assert await alive(isolated)


async def test_endless_output_in_the_background_blocks_nobody(isolated: Sandbox) -> None:
    await isolated.exec("yes & yes >&2 &", timeout_s=10)
    assert (await isolated.exec("seq 3", timeout_s=10)).output == "1\n2\n3\n"


async def test_a_flood_of_replies_takes_no_memory(isolated: Sandbox) -> None:
    tracemalloc.start()
    flood = "head -c 20M /dev/zero | tr '\\0' x 1<>/run/turnwise/reply"
    assert (await isolated.exec(f"{flood}; echo done", timeout_s=30)).output == "done\n"
    assert tracemalloc.get_traced_memory()[1] < 16_000_000
    tracemalloc.stop()


async def test_more_output_than_a_pipe_holds_is_complete(isolating: SandboxBackend, spec: SandboxSpec) -> None:
    async with isolating.create(replace(spec, limits=Limits(output_bytes=2_000_000))) as sandbox:
        result = await sandbox.exec("seq 200000", timeout_s=30)
    assert result.output == "".join(f"{i}\n" for i in range(1, 200_001))
    assert not result.left_out_bytes


async def test_several_busy_processes_get_the_cpus_of_one(isolated: Sandbox, spec: SandboxSpec) -> None:
    burn = "import time; e = time.monotonic() + 3\nwhile time.monotonic() < e: pass\nprint(time.process_time())"
    result = await isolated.exec(f'for i in 1 2 3; do python3 -c "{burn}" & done; wait', timeout_s=30)
    used_s = sum(float(line) for line in result.output.splitlines() if line[:1].isdigit())
    assert used_s < result.duration_s * spec.limits.cpus + 1.5


async def test_core_files_are_not_written(isolated: Sandbox) -> None:
    result = await isolated.exec("sh -c 'kill -SEGV $$'; ls", timeout_s=10)
    assert "core" not in result.output.splitlines()
