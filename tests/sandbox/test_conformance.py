"""What every backend promises: commands, files, snapshots, and the end of a sandbox."""

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest

from turnwise.errors import SandboxError
from turnwise.sandbox import Sandbox, SandboxBackend, SnapshotRef
from turnwise.types import Mount, SandboxSpec


async def out(sandbox: Sandbox, command: str) -> str:
    """A command's output, which must come without failure."""
    result = await sandbox.exec(command, timeout_s=20)
    assert result.exit_code == 0, result
    return result.output


async def test_output_and_exit_code_of_a_command(sandbox: Sandbox) -> None:
    result = await sandbox.exec("echo one; echo two; false", timeout_s=20)
    assert (result.output, result.exit_code) == ("one\ntwo\n", 1)
    assert not result.timed_out
    assert not result.left_out_bytes


async def test_an_unknown_command_fails_and_the_sandbox_lives(sandbox: Sandbox) -> None:
    result = await sandbox.exec("no-such-program", timeout_s=20)
    assert result.exit_code == 127
    assert "no-such-program" in result.output
    assert await out(sandbox, "echo alive") == "alive\n"


async def test_directory_and_environment_persist(sandbox: Sandbox) -> None:
    assert await out(sandbox, "pwd") == "/testbed\n"
    await sandbox.exec("cd pkg && export COLOUR='dark blue'", timeout_s=20)
    assert await out(sandbox, "pwd; echo $COLOUR; echo $GREETING") == "/testbed/pkg\ndark blue\nhello there\n"


async def test_exit_returns_its_status_and_ends_only_the_command(sandbox: Sandbox) -> None:
    await sandbox.exec("export KEPT=yes; cd pkg", timeout_s=20)
    result = await sandbox.exec("echo before; exit 3; echo after", timeout_s=20)
    assert (result.output, result.exit_code) == ("before\n", 3)
    assert await out(sandbox, "pwd; echo $KEPT") == "/testbed/pkg\nyes\n"


async def test_a_command_past_its_timeout_ends_and_keeps_what_it_said(sandbox: Sandbox) -> None:
    await sandbox.exec("export KEPT=yes; cd pkg", timeout_s=20)
    result = await sandbox.exec("echo begun; sleep 30; echo never", timeout_s=0.5)
    assert result.timed_out
    assert result.exit_code == 124
    assert result.output.startswith("begun\n")
    assert "never" not in result.output
    assert result.duration_s < 10
    assert await out(sandbox, "pwd; echo $KEPT") == "/testbed/pkg\nyes\n"


async def test_output_past_the_limit_is_cut_and_says_so(sandbox: Sandbox, spec: SandboxSpec) -> None:
    limit = spec.limits.output_bytes
    await sandbox.write("big", b"h" * limit * 10 + b"t" * limit * 10)
    for call in (sandbox.exec, sandbox.run_apart):
        result = await call("cat big", 20)
        assert result.output == "h" * (limit // 2) + "t" * (limit // 2)
        assert (result.head_chars, result.left_out_bytes) == (limit // 2, limit * 19)
        assert result.exit_code == 0


async def test_what_runs_apart_shares_nothing_with_the_shell(sandbox: Sandbox) -> None:
    await sandbox.exec("export KEPT=yes; cd pkg", timeout_s=20)
    assert sandbox.directory == "/testbed/pkg"
    result = await sandbox.run_apart("pwd; export KEPT=no; cd /tmp; echo one; exit 3", timeout_s=20)
    assert (result.output, result.exit_code) == ("/testbed\none\n", 3)
    assert await out(sandbox, "pwd; echo $KEPT") == "/testbed/pkg\nyes\n"


async def test_a_script_apart_past_its_timeout_ends_and_the_shell_goes_on(sandbox: Sandbox) -> None:
    await sandbox.exec("export KEPT=yes", timeout_s=20)
    await sandbox.run_apart("echo before", timeout_s=20)
    result = await sandbox.run_apart("echo begun; sleep 30; echo never", timeout_s=0.5)
    assert (result.output, result.exit_code, result.timed_out) == ("begun\n", 124, True)
    assert await out(sandbox, "echo $KEPT") == "yes\n"


async def test_write_then_read_gives_the_same_bytes(sandbox: Sandbox) -> None:
    content = bytes(range(256)) * 1000
    await sandbox.write("new/sub dir/'quoted'.bin", content)
    assert await sandbox.read("/testbed/new/sub dir/'quoted'.bin") == content
    assert await sandbox.read("pkg/deep/data.bin") == bytes(range(256))
    await sandbox.write("/testbed/README", b"")
    assert await sandbox.read("README") == b""


async def test_paths_are_relative_to_the_workdir_wherever_the_shell_is(sandbox: Sandbox) -> None:
    await sandbox.exec("cd pkg", timeout_s=20)
    assert await sandbox.read("README") == b"read me\n"


async def test_a_command_finds_neither_its_own_text_nor_what_was_written(sandbox: Sandbox) -> None:
    await sandbox.write("note", b"a secret")
    result = await sandbox.exec("cat /run/turnwise/command /run/turnwise/content; echo my own text", timeout_s=20)
    assert result.output.count("my own text") == 1
    assert "a secret" not in result.output


async def test_reading_what_is_not_a_file(sandbox: Sandbox) -> None:
    with pytest.raises(FileNotFoundError):
        await sandbox.read("missing")
    with pytest.raises(FileNotFoundError):
        await sandbox.read("pkg")


async def test_the_root_on_the_host_is_never_changed(sandbox: Sandbox, root: Path) -> None:
    await sandbox.exec("echo changed > README; rm -rf pkg; echo new > added", timeout_s=20)
    assert await out(sandbox, "cat README added") == "changed\nnew\n"
    assert (root / "README").read_text() == "read me\n"
    assert (root / "pkg" / "code.py").exists()
    assert not (root / "added").exists()


async def test_mounts_are_there(backend: SandboxBackend, spec: SandboxSpec, tmp_path: Path) -> None:
    (tmp_path / "tools").mkdir()
    (tmp_path / "tools" / "hammer").write_text("bang\n")
    mounted = replace(spec, mounts=(Mount(tmp_path / "tools", "/opt/turnwise/tools"),))
    async with backend.create(mounted) as sandbox:
        assert await out(sandbox, "cat /opt/turnwise/tools/hammer") == "bang\n"
        assert await sandbox.read("/opt/turnwise/tools/hammer") == b"bang\n"


async def test_two_sandboxes_share_nothing(backend: SandboxBackend, spec: SandboxSpec) -> None:
    async with backend.create(spec) as one, backend.create(spec) as two:
        await one.exec("echo one > README; echo one > /tmp/note; export WHO=one", timeout_s=20)
        assert await out(two, "cat README; echo $WHO") == "read me\n\n"
        with pytest.raises(FileNotFoundError):
            await two.read("/tmp/note")


async def test_a_fork_starts_where_the_snapshot_was_taken(sandbox: Sandbox) -> None:
    await sandbox.exec("echo changed > README; rm -rf pkg/deep; echo t > /tmp/t; cd pkg; export A='1 2'", timeout_s=20)
    ref = await sandbox.snapshot()
    await sandbox.exec("echo later > /testbed/README; export A=3; cd /", timeout_s=20)
    async with sandbox.fork(ref) as twin:
        assert await out(twin, "pwd; echo $A; cat ../README /tmp/t; ls") == "/testbed/pkg\n1 2\nchanged\nt\ncode.py\n"
        await twin.exec("echo twin > ../README", timeout_s=20)
    assert await sandbox.read("README") == b"later\n"


async def test_a_fork_of_a_fork_keeps_deletions(sandbox: Sandbox) -> None:
    await sandbox.exec("rm README", timeout_s=20)
    async with sandbox.fork(await sandbox.snapshot()) as child:
        await child.exec("rm -rf pkg .git; echo x > x", timeout_s=20)
        ref = await child.snapshot()
    async with sandbox.fork(ref) as grandchild:
        assert await out(grandchild, "ls") == "x\n"


async def test_one_snapshot_makes_many_forks_at_once(sandbox: Sandbox) -> None:
    await sandbox.write("shared", b"s" * 50_000)
    ref = await sandbox.snapshot()

    async def use(number: int) -> bytes:
        async with sandbox.fork(ref) as twin:
            await twin.exec(f"echo {number} > mine", timeout_s=20)
            return await twin.read("mine") + await twin.read("shared")

    assert await asyncio.gather(*(use(i) for i in range(4))) == [f"{i}\n".encode() + b"s" * 50_000 for i in range(4)]


async def test_an_unknown_snapshot_is_refused(sandbox: Sandbox) -> None:
    with pytest.raises(SandboxError, match="elsewhere-7"):
        sandbox.fork(SnapshotRef("elsewhere-7"))


async def test_calls_at_the_same_time_queue(sandbox: Sandbox) -> None:
    results = await asyncio.gather(*(sandbox.exec(f"echo {i}", timeout_s=20) for i in range(5)))
    assert [result.output for result in results] == [f"{i}\n" for i in range(5)]


async def test_a_sandbox_outside_its_block_is_dead_not_failing(backend: SandboxBackend, spec: SandboxSpec) -> None:
    sandbox = backend.create(spec)
    with pytest.raises(SandboxError):
        await sandbox.exec("true", timeout_s=20)
    async with sandbox:
        assert await out(sandbox, "echo in") == "in\n"
    for call in (
        sandbox.exec("true", timeout_s=20),
        sandbox.read("README"),
        sandbox.write("x", b""),
        sandbox.snapshot(),
    ):
        with pytest.raises(SandboxError):
            await call


async def test_closing_the_backend_ends_its_sandboxes(backend: SandboxBackend, spec: SandboxSpec) -> None:
    async with backend.create(spec) as sandbox:
        ref = await sandbox.snapshot()
        await backend.close()
        with pytest.raises(SandboxError):
            await sandbox.exec("true", timeout_s=20)
        with pytest.raises(SandboxError):
            sandbox.fork(ref)


async def test_setup_runs_first_and_what_it_exports_stays(backend: SandboxBackend, spec: SandboxSpec) -> None:
    spec = replace(spec, setup=("export GREETING=changed", "echo once >> made"))
    async with backend.create(spec) as sandbox:
        assert (await sandbox.exec("echo $GREETING", 10)).output == "changed\n"
        async with sandbox.fork(await sandbox.snapshot()) as twin:
            assert await twin.read("made") == b"once\n"
            assert (await twin.exec("echo $GREETING", 10)).output == "changed\n"


async def test_a_sandbox_whose_setup_fails_does_not_start(backend: SandboxBackend, spec: SandboxSpec) -> None:
    sandbox = backend.create(replace(spec, setup=("echo the reason && false", "echo never")))
    with pytest.raises(SandboxError, match="cannot be set up: the reason"):
        await sandbox.__aenter__()
    with pytest.raises(SandboxError):
        await sandbox.exec("echo alive", 10)
