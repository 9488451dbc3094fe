"""Nothing stays behind: processes, mounts, folders; after stop, Ctrl-C, and kill -9 of the parent."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from turnwise.errors import SandboxError
from turnwise.sandbox import LocalBackend
from turnwise.sandbox.owner import owner
from turnwise.sandbox.processes import children
from turnwise.sandbox.state import sweep
from turnwise.types import SandboxSpec

_PARENT = """
import asyncio, sys
from pathlib import Path
from turnwise.sandbox import LocalBackend
from turnwise.types import SandboxSpec

async def main(root, state, marker):
    backend = LocalBackend(Path(state))
    try:
        print("starting", flush=True)
        async with backend.create(SandboxSpec(Path(root))) as sandbox:
            await sandbox.exec(f"sleep {marker} & setsid nohup sh -c 'sleep {marker} & sleep {marker}' & sleep 0.1", 10)
            await sandbox.snapshot()
            print("ready", flush=True)
            await sandbox.exec(f"sleep {marker}", 600)
    finally:
        await backend.close()

asyncio.run(main(*sys.argv[1:]))
"""


def sleepers(marker: str) -> list[int]:
    """The processes on this machine that sleep for `marker` seconds."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if marker.encode() in path.read_bytes().split(b"\0"):
                found.append(int(path.parent.name))
        except OSError:
            continue
    return found


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def open_files() -> list[str]:
    """What this process's descriptors are of."""
    return [os.path.realpath(fd) for fd in Path("/proc/self/fd").iterdir()]


def mounts() -> str:
    return Path("/proc/self/mounts").read_text()


def called_with(pid: int, argument: str) -> bool:
    return argument in Path(f"/proc/{pid}/cmdline").read_text()


def naming(folder: Path) -> bytes:
    """The processes on this machine whose command line names the folder."""
    return subprocess.run(["pgrep", "-f", str(folder)], capture_output=True, check=False).stdout


def within(seconds: float, condition: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.02)
    return condition()


@pytest.fixture
def marker() -> str:
    return f"{os.getpid()}{time.monotonic_ns() % 1_000_000}"


@pytest.fixture
def state(tmp_path: Path) -> Path:
    state = tmp_path / "state"
    state.mkdir()
    return state


async def test_a_daemon_dies_when_its_sandbox_stops(root: Path, state: Path, marker: str) -> None:
    backend = LocalBackend(state)
    before = mounts()
    async with backend.create(SandboxSpec(root)) as sandbox:
        await sandbox.exec(f"setsid nohup sh -c '(sleep {marker} &) ; (setsid sleep {marker} &)' & sleep 0.2", 10)
        assert len(sleepers(marker)) == 2
    assert sleepers(marker) == []
    assert mounts() == before
    assert names(state / names(state)[0]) == ["disk", "empty", "etc"]
    await backend.close()
    assert names(state) == []


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_everything_goes_with_the_parent(root: Path, state: Path, marker: str, number: signal.Signals) -> None:
    arguments = [sys.executable, "-c", _PARENT, str(root), str(state), marker]
    parent = subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, start_new_session=True)
    assert parent.stdout is not None
    assert [parent.stdout.readline(), parent.stdout.readline()] == [b"starting\n", b"ready\n"]
    assert within(5, lambda: len(sleepers(marker)) >= 4)
    os.killpg(parent.pid, number)
    parent.wait(timeout=20)
    parent.stdout.close()
    assert within(5, lambda: sleepers(marker) == [])
    assert within(5, lambda: names(state) == [])


@pytest.mark.parametrize("delay_s", [0.0, 0.002, 0.005, 0.01, 0.02, 0.04])
def test_a_parent_killed_while_it_starts_a_sandbox_leaves_nothing(root: Path, state: Path, delay_s: float) -> None:
    parent = subprocess.Popen([sys.executable, "-c", _PARENT, str(root), str(state), "1"], stdout=subprocess.PIPE)
    assert parent.stdout is not None
    assert parent.stdout.readline() == b"starting\n"
    time.sleep(delay_s)
    parent.kill()
    parent.wait()
    parent.stdout.close()
    assert within(10, lambda: names(state) == [])
    assert within(10, lambda: naming(state) == b"")


async def test_a_cancelled_task_takes_its_sandbox_along(root: Path, state: Path, marker: str) -> None:
    backend = LocalBackend(state)

    async def use() -> None:
        async with backend.create(SandboxSpec(root)) as sandbox:
            await sandbox.exec(f"sleep {marker}", 600)

    task = asyncio.create_task(use())
    assert await asyncio.to_thread(within, 10, lambda: sleepers(marker) != [])
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert sleepers(marker) == []
    await backend.close()
    assert names(state) == []


async def test_a_cancelled_snapshot_leaves_nothing(
    root: Path, state: Path, tmp_path: Path, marker: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend = LocalBackend(state)
    async with backend.create(SandboxSpec(root)) as sandbox:
        (tmp_path / "tar").write_text(f"#!/bin/sh\nexec sleep {marker}\n")
        (tmp_path / "tar").chmod(0o755)
        monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
        packing = asyncio.create_task(sandbox.snapshot())
        assert await asyncio.to_thread(within, 10, lambda: sleepers(marker) != [])
        packing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await packing
        assert sleepers(marker) == []
        assert not [file for file in open_files() if "sandbox-snapshot" in file]
    await backend.close()


async def test_a_backend_gets_over_the_death_of_its_starter(root: Path, state: Path) -> None:
    backend = LocalBackend(state)
    async with backend.create(SandboxSpec(root)) as sandbox:
        starter, *_ = (pid for pid in children(os.getpid()) if called_with(pid, str(state)))
        os.kill(starter, signal.SIGKILL)
        with pytest.raises(SandboxError):
            await sandbox.exec("sleep 5; true", 20)
    async with backend.create(SandboxSpec(root)) as sandbox:
        assert (await sandbox.exec("echo again", 20)).output == "again\n"
    await backend.close()
    assert names(state) == []


def test_a_fork_of_the_owner_keeps_nothing_alive(root: Path, state: Path) -> None:
    forking = _PARENT.replace("import asyncio, sys", "import asyncio, os, sys, time").replace(
        'print("ready", flush=True)', "os.fork() or time.sleep(30); print('ready', flush=True)"
    )
    parent = subprocess.Popen([sys.executable, "-c", forking, str(root), str(state), "1"], stdout=subprocess.PIPE)
    assert parent.stdout is not None
    assert [parent.stdout.readline(), parent.stdout.readline()] == [b"starting\n", b"ready\n"]
    fork = next(pid for pid in children(parent.pid) if called_with(pid, "-c"))
    parent.kill()
    parent.wait()
    parent.stdout.close()
    try:
        assert within(5, lambda: names(state) == [])
    finally:
        os.kill(fork, signal.SIGKILL)


async def test_closing_waits_for_no_fork_of_the_owner(root: Path, state: Path) -> None:
    backend = LocalBackend(state)
    async with backend.create(SandboxSpec(root)):
        fork = os.fork()
        if fork == 0:
            time.sleep(20)  # noqa: ASYNC251
            os._exit(0)
    await backend.close()
    assert os.waitpid(fork, os.WNOHANG) == (0, 0), "it was waited for"  # noqa: ASYNC222
    assert names(state) == []
    os.kill(fork, signal.SIGKILL)
    os.waitpid(fork, 0)  # noqa: ASYNC222


async def test_closing_gets_over_a_starter_that_hangs(root: Path, state: Path) -> None:
    backend = LocalBackend(state)
    async with backend.create(SandboxSpec(root)):
        starter, *_ = (pid for pid in children(os.getpid()) if called_with(pid, str(state)))
    os.kill(starter, signal.SIGSTOP)
    entering = asyncio.create_task(backend.create(SandboxSpec(root)).__aenter__())
    await asyncio.sleep(0.1)
    await backend.close()
    with pytest.raises(SandboxError, match="starter"):
        await asyncio.wait_for(entering, 5)
    assert names(state) == []


async def test_a_start_that_is_cancelled_leaves_nothing(root: Path, state: Path) -> None:
    backend = LocalBackend(state)
    for delay_ms in range(120):
        entering = asyncio.create_task(backend.create(SandboxSpec(root)).__aenter__())
        await asyncio.sleep(delay_ms % 30 / 1000)
        entering.cancel()
        await asyncio.gather(entering, return_exceptions=True)
    await backend.close()
    assert names(state) == []
    assert within(5, lambda: naming(state) == b"")


def test_the_sweep_takes_the_dead_and_spares_the_living(tmp_path: Path) -> None:
    user = os.getuid()
    boot, namespace, *_ = owner().split(".")
    mine = tmp_path / f"turnwise-{user}-{owner()}-abc"
    reused = tmp_path / f"turnwise-{user}-{boot}.{namespace}.{os.getpid()}.1-abc"
    gone = tmp_path / f"turnwise-{user}-{boot}.{namespace}.4194305.77-abc"
    others = tmp_path / f"turnwise-{user + 1}-{boot}.{namespace}.4194305.77-abc"
    for folder in (mine, reused, gone, others):
        (folder / "etc").mkdir(parents=True)
    sweep(tmp_path)
    assert names(tmp_path) == sorted([mine.name, others.name])


async def test_the_sweep_of_another_pid_namespace_spares_a_folder_in_use(root: Path, state: Path) -> None:
    backend = LocalBackend(state)
    sweeping = f"from pathlib import Path; from turnwise.sandbox.state import sweep; sweep(Path({str(state)!r}))"
    unshare = ["unshare", "--map-current-user", "--pid", "--fork", "--mount-proc"]
    async with backend.create(SandboxSpec(root)) as sandbox:
        await asyncio.to_thread(subprocess.run, [*unshare, sys.executable, "-c", sweeping], check=True)
        assert (await sandbox.exec("echo still here", 20)).output == "still here\n"
    await backend.close()
