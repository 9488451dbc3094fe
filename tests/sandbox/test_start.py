"""Who can start sandboxes, from where, and what they are told when they cannot."""

import asyncio
import os
import shutil
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path

import pytest

from turnwise.errors import InputError, SandboxError
from turnwise.sandbox import LocalBackend
from turnwise.types import Limits, Mount, SandboxSpec

SOMEBODY = 54321


def as_ordinary_user(errand: Callable[[Path], Awaitable[None]]) -> str:
    """Run `errand` in a fork of this process that gave up root, if it was root; returns its traceback, or ""."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(reader)
        try:
            if os.geteuid() == 0:
                os.setgroups([])
                os.setresgid(SOMEBODY, SOMEBODY, SOMEBODY)
                os.setresuid(SOMEBODY, SOMEBODY, SOMEBODY)
            if not os.access(sys.executable, os.X_OK):  # root's own Python
                sys.executable = "/usr/bin/python3"
            with tempfile.TemporaryDirectory(dir="/tmp") as scratch:
                asyncio.run(errand(Path(scratch)))
        except BaseException:
            os.write(writer, traceback.format_exc().encode())
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as stream:
        told = stream.read()
    os.waitpid(pid, 0)
    return told


async def errand(scratch: Path, foreign: Path) -> None:
    """The promises that could differ for an ordinary user; `foreign` may be somebody else's repository."""
    root, state = scratch / "root", scratch / "state"
    for folder in (root / "pkg", state):
        folder.mkdir(parents=True)
    (root / "README").write_text("read me\n")
    (root / "pkg" / "code.py").write_text("ONE = 1\n")
    backend = LocalBackend(state)
    limits = Limits(memory_mb=256, processes=16, disk_mb=8)
    async with backend.create(SandboxSpec(root, limits=limits)) as sandbox:
        await everyday_use(sandbox)
        await limits_hold(sandbox)
    async with backend.create(SandboxSpec(foreign)) as sandbox:
        assert (await sandbox.exec("echo mine >> theirs && rm other && cat theirs", 20)).output == "theirs\nmine\n"
        async with sandbox.fork(await sandbox.snapshot()) as twin:
            assert (await twin.exec("ls && cat theirs", 20)).output == "theirs\ntheirs\nmine\n"
    await backend.close()
    assert (foreign / "theirs").read_text() == "theirs\n"
    assert (root / "README").read_text() == "read me\n"
    assert not any(state.iterdir())


async def everyday_use(sandbox) -> None:
    result = await sandbox.exec("git init -q . && echo two >> README && rm -r pkg && mkdir pkg && id -u && pwd", 20)
    assert (result.output, result.exit_code) == ("0\n/testbed\n", 0), result
    ref = await sandbox.snapshot()
    async with sandbox.fork(ref) as twin:
        assert (await twin.exec("cat README; ls pkg", 20)).output == "read me\ntwo\n"
    await sandbox.write("data", b"\0" * 1000)
    assert await sandbox.read("data") == b"\0" * 1000
    assert (await sandbox.exec("echo no > /usr/x; unshare -U true; cat /proc/net/route | wc -l", 20)).output.endswith(
        "1\n"
    )
    assert (await sandbox.exec("sleep 60", 0.3)).timed_out
    assert (await sandbox.exec("exit 3", 20)).exit_code == 3


async def limits_hold(sandbox) -> None:
    bomb = await sandbox.exec("bomb() { bomb | bomb; }; bomb", 1.0)
    assert bomb.timed_out
    hog = await sandbox.exec("python3 -c 'bytearray(2**30)'", 20)
    assert "MemoryError" in hog.output, hog
    full = await sandbox.exec("head -c 20M /dev/zero > /tmp/fill; rm /tmp/fill", 20)
    assert full.exit_code == 0
    assert ("No space left" in full.output) or ("File size limit" in full.output)
    assert (await sandbox.exec("setsid nohup sleep 1000 & echo alive", 20)).output == "alive\n"


def test_an_ordinary_user_has_sandboxes_too(root: Path) -> None:
    async def warm_up(scratch: Path) -> None:
        backend = LocalBackend(scratch)
        async with backend.create(SandboxSpec(root)) as sandbox:
            await sandbox.snapshot()
        await backend.close()

    # The fork may not be able to read this interpreter's modules any more: load all of them before.
    with tempfile.TemporaryDirectory(dir="/tmp") as scratch:
        asyncio.run(warm_up(Path(scratch)))
        Path(scratch).chmod(0o755)
        for name in ("theirs", "other"):
            Path(scratch, name).write_text(f"{name}\n")
        assert as_ordinary_user(lambda own: errand(own, Path(scratch))) == ""


async def test_sandboxes_need_bubblewrap(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("nsenter", "setpriv", "tar"):
        (tmp_path / name).symlink_to(str(shutil.which(name)))
    monkeypatch.setenv("PATH", str(tmp_path))
    backend = LocalBackend(tmp_path / "state")
    (tmp_path / "state").mkdir()
    with pytest.raises(InputError, match="apt-get install bubblewrap"):
        await backend.create(SandboxSpec(root)).__aenter__()
    assert not any((tmp_path / "state").iterdir())


def test_a_machine_without_user_namespaces_is_told_so(root: Path) -> None:
    script = f"""
import asyncio
from pathlib import Path
from turnwise.sandbox import LocalBackend
from turnwise.types import SandboxSpec
async def main():
    async with LocalBackend().create(SandboxSpec(Path({str(root)!r}))):
        pass
asyncio.run(main())
"""
    forbid = 'echo 0 > /proc/sys/user/max_user_namespaces; exec "$@"'
    command = ["unshare", "--user", "--map-root-user", "sh", "-c", forbid, "sh", sys.executable, "-c", script]
    result = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert "InputError: this machine refuses unprivileged user namespaces" in result.stderr


async def test_a_root_that_is_not_there(root: Path, tmp_path: Path) -> None:
    backend = LocalBackend()
    with pytest.raises(InputError, match="nowhere"):
        await backend.create(SandboxSpec(tmp_path / "nowhere")).__aenter__()
    with pytest.raises(SandboxError, match="no-tools"):
        await backend.create(SandboxSpec(root, mounts=(Mount(tmp_path / "no-tools", "/opt/x"),))).__aenter__()
    await backend.close()


async def test_a_state_folder_that_cannot_be_made(root: Path, tmp_path: Path) -> None:
    backend = LocalBackend(tmp_path / "nowhere")
    with pytest.raises(SandboxError, match="nowhere"):
        await backend.create(SandboxSpec(root)).__aenter__()
    await backend.close()


async def test_odd_names_of_roots_and_other_workdirs(tmp_path: Path) -> None:
    odd = tmp_path / "a:b,c d\\e"
    odd.mkdir()
    (odd / "file").write_text("odd\n")
    backend = LocalBackend()
    async with backend.create(SandboxSpec(odd, workdir="/srv/work")) as sandbox:
        result = await sandbox.exec("cat file; echo x > y; pwd", 20)
        assert result.output == "odd\n/srv/work\n"
        assert await sandbox.read("y") == b"x\n"
    await backend.close()


async def test_many_at_once(root: Path) -> None:
    backend = LocalBackend()

    async def use(number: int) -> str:
        async with backend.create(replace(SandboxSpec(root), env={"N": str(number)})) as sandbox:
            await sandbox.exec("echo $N > mine", 60)
            await asyncio.sleep(0.5)
            return (await sandbox.exec("cat mine", 60)).output

    assert await asyncio.gather(*(use(number) for number in range(32))) == [f"{number}\n" for number in range(32)]
    await backend.close()


async def test_many_sandboxes_started_at_once_on_a_busy_loop_all_come_up(tmp_path: Path) -> None:
    async def one() -> int:
        async with backend.create(SandboxSpec(tmp_path)) as sandbox:
            time.sleep(0.02)  # noqa: ASYNC251  # what else an event loop has to do
            return (await sandbox.exec("true", 20)).exit_code

    backend = LocalBackend()
    try:
        assert await asyncio.wait_for(asyncio.gather(*(one() for _ in range(40))), 50) == [0] * 40
    finally:
        await backend.close()
