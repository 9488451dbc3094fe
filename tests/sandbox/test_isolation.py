"""What isolation promises: what the inside sees, and how its commands live together."""

import asyncio
import os
import signal
import socket
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from turnwise.errors import SandboxError
from turnwise.sandbox import Sandbox, SandboxBackend
from turnwise.types import ExecResult, Mount, SandboxSpec

BASE_PYTHON = Path(sys.base_prefix).resolve() / "bin" / f"python{sys.version_info.major}.{sys.version_info.minor}"
NAMESPACES = ("pid", "ipc", "uts", "net", "mnt", "user")


def stat_parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def process_called(*arguments: str) -> int:
    """The number of the process on this machine that was started with these arguments."""
    wanted = "\0".join(arguments).encode() + b"\0"
    return next(int(path.parent.name) for path in Path("/proc").glob("[0-9]*/cmdline") if path.read_bytes() == wanted)


def own_namespaces() -> set[str]:
    return {str(Path(f"/proc/self/ns/{kind}").readlink()) for kind in NAMESPACES}


async def run(sandbox: Sandbox, command: str, timeout_s: float = 20.0) -> ExecResult:
    return await sandbox.exec(command, timeout_s)


async def test_there_is_no_network_but_loopback(isolated: Sandbox) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        result = await run(isolated, f"cat /proc/net/dev; exec 5<>/dev/tcp/127.0.0.1/{port}")
    assert result.exit_code != 0
    interfaces = [line.split(":")[0].strip() for line in result.output.splitlines() if ":" in line and "|" not in line]
    assert interfaces[0] == "lo"
    assert "refused" in result.output


async def test_the_network_is_there_when_asked_for(isolating: SandboxBackend, spec: SandboxSpec) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        async with isolating.create(replace(spec, network=True)) as sandbox:
            assert (await run(sandbox, f"exec 5<>/dev/tcp/127.0.0.1/{port}; echo connected")).output == "connected\n"


async def test_the_hosts_home_and_files_are_out_of_sight(on_host: Sandbox, root: Path, tmp_path: Path) -> None:
    (tmp_path / "hidden_tests").write_text("secret")
    for path in (tmp_path / "hidden_tests", root, Path.home() / ".bashrc", Path(__file__), Path("/etc/shadow")):
        assert (await run(on_host, f"cat {path}")).exit_code == 1, path
    seen = set((await run(on_host, "ls /")).output.split())
    assert seen <= {"bin", "dev", "etc", "lib", "lib32", "lib64", "libx32", "proc", "run", "sbin", "testbed", "tmp",
                    "usr", BASE_PYTHON.parts[1]}  # fmt: skip
    assert (await run(on_host, 'ls "$HOME"')).output == ""


async def test_the_root_is_not_to_be_found_by_other_ways(on_host: Sandbox, root: Path) -> None:
    await run(on_host, "cd /")
    result = await run(on_host, "ls /proc/1/root/testbed/README; ls /proc/self/cwd/../../../home /run/turnwise/..")
    assert "turnwise\n" in result.output
    assert (await run(on_host, "ls /run/turnwise")).output == "command\ninit\nloop\noutput\nreply\nshell\n"
    mounts = (await run(on_host, "cat /proc/self/mountinfo")).output
    assert str(root) not in mounts
    assert "upper" not in mounts.replace("upperdir=upper", "")


async def test_clean_sources_of_packages_are_masked(on_host: Sandbox) -> None:
    find = "find /usr /opt /root /home -path '*-packages/*' -o -name '*.whl' 2>/dev/null | grep -v importlib/data"
    assert (await run(on_host, find)).output == ""  # (the standard library's own tests bring two empty wheels)
    if os.access(BASE_PYTHON, os.X_OK):
        version = (await run(on_host, f"{BASE_PYTHON} --version")).output
        assert version == f"Python {sys.version.split()[0]}\n"
        assert "No module named 'pip'" in (await run(on_host, f"{BASE_PYTHON} -c 'import pip'")).output


async def test_the_system_and_the_mounts_are_read_only(
    local: SandboxBackend, spec: SandboxSpec, tmp_path: Path
) -> None:
    (tmp_path / "tools").mkdir()
    (tmp_path / "tools" / "hammer").write_text("bang\n")
    async with local.create(replace(spec, mounts=(Mount(tmp_path / "tools", "/opt/tools"),))) as sandbox:
        for path in ("/usr/bin/x", "/etc/x", "/opt/tools/x", "/x", "/dev/x", "/run/turnwise/x", "/opt/tools/hammer"):
            assert (await run(sandbox, f"echo no > {path}")).exit_code != 0, path
        for path in ("/dev/null", "/usr/bin/env", "/opt/tools/hammer", "/etc/passwd"):
            assert (await run(sandbox, f"chmod 777 {path}")).exit_code != 0, path
        assert (await run(sandbox, "echo 1 > /proc/sys/vm/swappiness; echo h > /proc/sysrq-trigger")).exit_code != 0
    assert (tmp_path / "tools" / "hammer").read_text() == "bang\n"


async def test_no_namespaces_or_mounts_can_be_made_inside(isolated: Sandbox) -> None:
    assert (await run(isolated, "unshare --user true")).exit_code != 0
    assert (await run(isolated, "mount -t tmpfs none /tmp")).exit_code != 0


async def test_processes_ipc_and_hostname_are_its_own(isolating: SandboxBackend, spec: SandboxSpec) -> None:
    async with isolating.create(spec) as one, isolating.create(spec) as two:
        await run(one, "sleep 100 & sleep 0.2")
        assert "sleep" in (await run(one, "cat /proc/[0-9]*/comm")).output
        assert "sleep" not in (await run(two, "cat /proc/[0-9]*/comm")).output
        links = [(await run(box, "readlink /proc/self/ns/{pid,ipc,uts,net,mnt,user}")).output for box in (one, two)]
    # An engine's containers are in its own user namespace, which it shares with the host unless told otherwise.
    own = NAMESPACES if isolating.name == "local" else NAMESPACES[:-1]
    assert len(own_namespaces() | set(links[0].split()) | set(links[1].split())) == len(NAMESPACES) + 2 * len(own)


async def test_capabilities_that_reach_the_host_are_gone(isolated: Sandbox) -> None:
    effective = int((await run(isolated, "sed -n 's/CapEff:\t//p' /proc/self/status")).output, 16)
    chown, dac_override, fowner = 0, 1, 3
    assert effective & ~(1 << chown | 1 << dac_override | 1 << fowner) == 0
    assert (await run(isolated, "grep NoNewPrivs /proc/self/status")).output.split() == ["NoNewPrivs:", "1"]


async def test_git_works_inside(isolated: Sandbox) -> None:
    commit = "echo 'TWO = 2' >> pkg/code.py && git add -A && git commit -qm two"
    assert (
        await run(isolated, f"{commit} && git log --oneline | wc -l && git diff HEAD~1 | tail -1")
    ).output == "2\n+TWO = 2\n"


async def test_everything_in_the_repository_can_be_changed(isolated: Sandbox) -> None:
    result = await run(isolated, "chmod 755 README && mv pkg moved && rm -r moved/deep && mkdir pkg && ls . moved")
    assert result.output == ".:\nREADME\nmoved\npkg\n\nmoved:\ncode.py\n"


async def test_background_processes_live_from_one_command_to_the_next(isolated: Sandbox) -> None:
    begun = await run(isolated, "(sleep 1; echo done > /tmp/done; sleep 100) & echo started")
    assert (begun.output, begun.timed_out) == ("started\n", False)
    assert (await run(isolated, "sleep 1.5; cat /tmp/done; jobs | wc -l")).output == "done\n1\n"
    assert (await run(isolated, "kill %1; wait; echo gone")).output.endswith("gone\n")


async def test_a_background_processs_output_never_leaks_into_another_command(isolated: Sandbox) -> None:
    await run(isolated, "(while :; do echo noise; sleep 0.01; done) &")
    assert (await run(isolated, "sleep 0.3; echo clean")).output == "clean\n"


async def test_a_timeout_spares_earlier_background_processes(isolated: Sandbox) -> None:
    await run(isolated, "sleep 100 &")
    result = await run(isolated, "sleep 200 & setsid sleep 300 & (sleep 400; true)", timeout_s=0.5)
    assert result.timed_out
    left = (await run(isolated, "cat /proc/[0-9]*/cmdline | tr '\\0' ' '")).output
    assert "sleep 100" in left
    assert not any(f"sleep {n}00" in left for n in (2, 3, 4))


async def test_a_shell_that_loops_by_itself_is_stopped(isolated: Sandbox) -> None:
    await run(isolated, "export KEPT=yes; cd pkg")
    assert (await run(isolated, "while :; do :; done", timeout_s=0.3)).exit_code == 124
    assert (await run(isolated, "pwd; echo $KEPT")).output == "/testbed/pkg\nyes\n"


@pytest.mark.parametrize("pause_s", [0, 0.01])
async def test_commands_that_end_just_at_their_timeout_do_not_hurt_the_next(isolated: Sandbox, pause_s: float) -> None:
    loop, over = asyncio.get_running_loop(), False

    def hold_up_the_event_loop() -> None:
        if not over:
            time.sleep(pause_s)
            loop.call_later(0.001, hold_up_the_event_loop)

    hold_up_the_event_loop()
    for number in range(40):
        await run(isolated, "sleep 0.04", timeout_s=0.030 + 0.0005 * number)
        assert (await run(isolated, f"echo {number}")).output == f"{number}\n"
    over = True


async def test_commands_that_end_or_hurt_the_shell(isolated: Sandbox) -> None:
    await run(isolated, "cd pkg; export KEPT='a\nb'")
    for command, exit_code in (
        ("set -e; false; echo no", 1),
        ("exec sh -c 'exit 7'", 7),
        ("kill -9 $$", -9),
        ("sh -c 'kill -15 $$'", -15),
        ("if fi", 2),
        ("set -u; echo $NOTHING", 127),
    ):
        assert (await run(isolated, command)).exit_code == exit_code, command
        result = await run(isolated, 'pwd; echo "$KEPT"')
        assert (result.output, result.exit_code) == ("/testbed/pkg\na\nb\n", 0), command


async def test_killing_everything_in_sight_leaves_the_sandbox_usable(isolated: Sandbox) -> None:
    await run(isolated, "kill -9 -1; kill -9 1 $$")
    assert (await run(isolated, "echo alive")).output == "alive\n"


async def test_stopping_everything_in_sight_stops_no_script_apart(isolated: Sandbox) -> None:
    await isolated.run_apart("true", 20)
    await run(isolated, "kill -STOP -1")
    assert (await isolated.run_apart("echo goes on", 20)).output == "goes on\n"


async def test_commands_keep_the_shells_variables_functions_and_lines(isolated: Sandbox) -> None:
    await run(isolated, "greet() { echo hi $1; }; local_only=5")
    assert (await run(isolated, "greet you; echo $local_only")).output == "hi you\n5\n"
    assert "line 2: oops" in (await run(isolated, "true\noops\ntrue")).output


async def test_a_commands_text_stands_nowhere_while_it_runs(isolated: Sandbox) -> None:
    await isolated.write("note", b"the secret")
    await run(isolated, "true # the secret")
    look = "grep -rla --devices=skip 'the s[e]cret' /run/turnwise /proc/[0-9]*/cmdline"
    result = await run(isolated, f"{look} # the secret")
    assert (result.output, result.exit_code) == ("", 1)


@pytest.mark.parametrize("word", ["done 42", "done 42 ", "done 42 5eed", "died 42", "ready 42", "left 42"])
async def test_nothing_but_the_shell_says_that_a_command_is_done(isolated: Sandbox, word: str) -> None:
    forge = f"printf '\\0{word}\\n/\\n\\nend\\0' 1<>/run/turnwise/reply"
    result = await run(isolated, f"{forge}; sleep 0.2; {forge}; echo told; (exit 3)")
    assert (result.output, result.exit_code) == ("told\n", 3)
    result = await run(isolated, "sleep 0.1; pwd")
    assert (result.output, result.exit_code) == ("/testbed\n", 0)
    await run(isolated, f"(sleep 0.1; {forge}) &")
    await asyncio.sleep(0.3)
    assert (await run(isolated, "sleep 0.1; echo mine")).output == "mine\n"


async def test_what_is_written_to_others_pipes_is_not_the_status_of_a_script(isolated: Sandbox) -> None:
    assert (await isolated.run_apart("exit 3", 20)).exit_code == 3
    await run(isolated, "for pipe in /proc/[3-9]*/fd/1; do [ ! -p $pipe ] || echo 0 >$pipe; done 2>/dev/null", 2)
    assert (await isolated.run_apart("sleep 0.1; exit 3", 20)).exit_code == 3
    await run(isolated, "kill -9 -1; kill -9 $(ls /proc | grep -x '[3-9]')")
    assert (await isolated.run_apart("exit 3", 20)).exit_code == 3


async def test_a_pipe_that_nobody_reads_ends_its_writer(isolated: Sandbox) -> None:
    assert (await run(isolated, "yes | head -1; echo ${PIPESTATUS[0]}")).output == "y\n141\n"


async def test_commands_inherit_no_descriptors(isolated: Sandbox) -> None:
    assert (await run(isolated, "ls /proc/self/fd")).output == "0\n1\n2\n3\n"  # (the last is what `ls` reads)


async def test_standard_input_is_empty(isolated: Sandbox) -> None:
    assert (await run(isolated, "cat; read x; echo $?", timeout_s=5)).output == "1\n"


async def test_links_do_not_lead_out(isolated: Sandbox, tmp_path: Path) -> None:
    (tmp_path / "outside").write_text("secret")
    await run(isolated, f"ln -s {tmp_path}/outside link; ln -s /etc/shadow shadow")
    for link in ("link", "shadow"):
        with pytest.raises(FileNotFoundError):
            await isolated.read(link)


async def test_a_sandbox_killed_from_outside_is_told_from_a_failing_command(on_host: Sandbox) -> None:
    seconds = f"{os.getpid()}99"
    running = asyncio.create_task(on_host.exec(f"sleep {seconds}", timeout_s=60))
    await asyncio.sleep(0.5)
    shell = stat_parent(process_called("sleep", seconds))
    os.kill(stat_parent(shell), signal.SIGKILL)
    with pytest.raises(SandboxError):
        await running
    with pytest.raises(SandboxError):
        await on_host.read("README")


async def test_a_cancelled_call_ends_the_sandbox(isolated: Sandbox) -> None:
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(isolated.exec("sleep 100", timeout_s=200), timeout=0.3)
    with pytest.raises(SandboxError, match="cancelled"):
        await isolated.exec("true", timeout_s=20)


async def test_a_repository_of_somebody_else_can_be_changed(isolating: SandboxBackend, spec: SandboxSpec) -> None:
    if os.geteuid() == 0:
        for path in (spec.root, *spec.root.rglob("*")):
            os.chown(path, 4321, 4321)
    async with isolating.create(spec) as sandbox:
        assert (await run(sandbox, "echo more >> README && rm pkg/code.py && git status --short")).output == (
            " M README\n D pkg/code.py\n"
        )
