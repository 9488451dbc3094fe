"""What only the Docker backend has: images, an engine that may fail, and containers that must not stay behind."""

import asyncio
import io
import json
import os
import signal
import subprocess
import sys
import tarfile
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import docker.errors
import pytest

from turnwise.errors import InputError, SandboxError
from turnwise.sandbox.docker import DockerBackend, connect, remove_image
from turnwise.sandbox.owner import LABEL, is_gone, owner
from turnwise.types import Mount, SandboxSpec

from .engine import IMAGE

_PARENT = """
import asyncio, sys
from pathlib import Path
from turnwise.sandbox.docker import DockerBackend
from turnwise.types import SandboxSpec

async def main(root, host, image):
    backend = DockerBackend(base_image=image, host=host)
    try:
        print("starting", flush=True)
        async with backend.create(SandboxSpec(Path(root))) as sandbox:
            await sandbox.exec("sleep 1000 & setsid nohup sleep 1000 &", 10)
            await sandbox.snapshot()
            print("ready", flush=True)
            await sandbox.exec("sleep 1000", 2000)
    finally:
        await backend.close()

asyncio.run(main(*sys.argv[1:]))
"""


@pytest.fixture
def api(docker_host: str) -> Iterator[Any]:
    import docker

    client = docker.DockerClient(base_url=docker_host) if docker_host else docker.from_env()
    yield client.api
    client.close()


@pytest.fixture
async def docker_backend(docker_host: str) -> AsyncIterator[DockerBackend]:
    backend = DockerBackend(base_image=IMAGE, host=docker_host)
    yield backend
    await backend.close()


@pytest.fixture
def parent(root: Path, docker_host: str) -> Iterator["subprocess.Popen[bytes]"]:
    """Another process with a sandbox of its own."""
    arguments = [sys.executable, "-c", _PARENT, str(root), docker_host, IMAGE]
    with subprocess.Popen(
        arguments, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, start_new_session=True
    ) as parent:
        yield parent
        parent.kill()


def ours(api: Any) -> list[str]:
    """The containers and snapshots of any backend."""
    wanted = {"label": [LABEL]}
    found = api.containers(all=True, filters=wanted) + api.images(all=True, filters=wanted)
    return [item["Id"] for item in found]


def within(seconds: float, api: Any, count: int) -> bool:
    deadline = time.monotonic() + seconds
    while len(ours(api)) != count and time.monotonic() < deadline:
        time.sleep(0.05)
    return len(ours(api)) == count


def small_image(api: Any, name: str, files: dict[str, str]) -> None:
    """`IMAGE` with more files, as `name`."""
    api.create_container(IMAGE, ["true"], name=name)
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for path, text in files.items():
            member = tarfile.TarInfo(path)
            member.size = len(text)
            archive.addfile(member, io.BytesIO(text.encode()))
    api.put_archive(name, "/", buffer.getvalue())
    api.commit(name, repository=name, changes=["ENV FLAVOUR=vanilla", 'ENTRYPOINT ["/bin/false"]'])
    api.remove_container(name)


async def test_a_rows_image_is_run_where_its_repository_lies(docker_backend: DockerBackend, api: Any) -> None:
    small_image(api, "turnwise-tests-row", {"repo/code.py": "ONE = 1\n"})
    spec = SandboxSpec(None, workdir="/repo", image="turnwise-tests-row", env={"GREETING": "hello"})
    try:
        async with docker_backend.create(spec) as sandbox:
            result = await sandbox.exec("cat code.py; pwd; echo $FLAVOUR $GREETING; ls /testbed", 20)
            assert result.output.startswith("ONE = 1\n/repo\nvanilla hello\n")
            assert result.exit_code != 0
            await sandbox.exec("echo 'TWO = 2' >> code.py", 20)
            async with sandbox.fork(await sandbox.snapshot()) as twin:
                assert await twin.read("code.py") == b"ONE = 1\nTWO = 2\n"
        async with docker_backend.create(spec) as sandbox:
            assert await sandbox.read("code.py") == b"ONE = 1\n"
    finally:
        await docker_backend.close()
        api.remove_image("turnwise-tests-row")


async def test_an_image_without_the_workdir_is_named(docker_backend: DockerBackend) -> None:
    with pytest.raises(SandboxError, match="no directory /elsewhere"):
        async with docker_backend.create(SandboxSpec(None, workdir="/elsewhere", image=IMAGE)):
            pass


async def test_an_image_without_python_is_told_from_an_engine_that_fails(
    docker_backend: DockerBackend, api: Any
) -> None:
    small_image(api, "turnwise-tests-bare", {"usr/bin/python3": "", "repo/code.py": ""})
    try:
        with pytest.raises(SandboxError, match=r"died .*(python3|Permission denied)"):
            async with docker_backend.create(SandboxSpec(None, workdir="/repo", image="turnwise-tests-bare")):
                pass
    finally:
        api.remove_image("turnwise-tests-bare")


async def test_an_image_that_cannot_be_pulled_is_named_with_the_reason(docker_backend: DockerBackend) -> None:
    image = "localhost:1/nobody/nothing:latest"
    with pytest.raises(SandboxError, match=f"cannot pull image {image}: .*refused"):
        async with docker_backend.create(SandboxSpec(None, image=image)):
            pass


async def test_a_mount_that_is_not_there_is_told(docker_backend: DockerBackend, spec: SandboxSpec) -> None:
    missing = replace(spec, mounts=(Mount(Path("/no/such/folder"), "/opt/tools"),))
    with pytest.raises(SandboxError, match="/no/such/folder"):
        async with docker_backend.create(missing):
            pass


async def test_a_directory_needs_a_base_image(docker_host: str, spec: SandboxSpec) -> None:
    backend = DockerBackend(host=docker_host)
    with pytest.raises(InputError, match="base_image"):
        async with backend.create(spec):
            pass
    await backend.close()


async def test_an_engine_that_does_not_answer(spec: SandboxSpec, tmp_path: Path) -> None:
    backend = DockerBackend(host=f"unix://{tmp_path}/none.sock")
    with pytest.raises(InputError, match="no Docker engine answers at"):
        async with backend.create(spec):
            pass
    await backend.close()


class Stubborn(BaseHTTPRequestHandler):
    """An engine that answers what `answers` says (by a part of the request line), and else fails, or hangs up."""

    answers: ClassVar[dict[str, object]] = {"/version": {"ApiVersion": "1.43"}, "/_ping": "OK"}

    def do_GET(self) -> None:
        for part, answer in self.answers.items():
            if part in self.requestline:
                self.reply(200, answer)
                return
        if "hang-up" not in self.requestline:
            self.reply(500, {"message": "told to fail"})

    def reply(self, status: int, answer: object) -> None:
        body = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_DELETE = do_POST = do_GET

    def log_message(self, *arguments: object) -> None:
        """Quiet."""


@contextmanager
def stubborn_engine(**answers: object) -> Iterator[str]:
    handler = type("Handler", (Stubborn,), {"answers": {**Stubborn.answers, **answers}})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        serving = threading.Thread(target=server.serve_forever)
        serving.start()
        try:
            yield f"tcp://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            serving.join()


async def test_an_engine_that_fails_while_it_is_connected_to(spec: SandboxSpec) -> None:
    with stubborn_engine() as host:
        backend = DockerBackend(base_image=IMAGE, host=host)
        with pytest.raises(SandboxError, match=r"cannot ask the Docker engine about itself: .*told to fail"):
            async with backend.create(spec):
                pass
        await backend.close()


async def test_a_sweep_that_fails_is_a_warning(spec: SandboxSpec, caplog: pytest.LogCaptureFixture) -> None:
    place = owner().rsplit(".", 2)[0]
    stuck = [{"Id": "stuck", "Labels": {LABEL: f"{place}.4194305.7"}}]
    with stubborn_engine(**{"/info": {"Driver": "overlay2"}, "/containers/json": stuck}) as host:
        backend = DockerBackend(base_image=IMAGE, host=host)
        with pytest.raises(SandboxError, match="cannot look up image"):
            async with backend.create(spec):
                pass
        await backend.close()
    assert [record.message.partition(":")[0] for record in caplog.records] == [
        "cannot remove container stuck",
        "cannot look for snapshots of ended runs",
    ]


def test_a_snapshot_that_the_engine_does_not_remove_holds_up_nothing() -> None:
    with stubborn_engine() as host:
        api = connect(host)
        for image in ("fails", "hang-up"):
            remove_image(api, image)
            with pytest.raises((docker.errors.APIError, OSError)):
                api.remove_image(image, force=True)
        api.close()


def test_without_the_sdk_one_sentence_says_what_to_install() -> None:
    program = (
        "import sys; sys.modules['docker'] = None\n"
        "from turnwise.errors import InputError\nfrom turnwise.sandbox.docker import connect\n"
        "try: connect('')\nexcept InputError as error: print(error)"
    )
    told = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert "pip install 'turnwise[docker]'" in told


async def test_mounts_are_read_only_and_the_host_is_out_of_sight(
    docker_backend: DockerBackend, spec: SandboxSpec, tmp_path: Path
) -> None:
    (tmp_path / "tools").mkdir()
    (tmp_path / "tools" / "hammer").write_text("bang\n")
    async with docker_backend.create(replace(spec, mounts=(Mount(tmp_path / "tools", "/opt/tools"),))) as sandbox:
        for path in ("/opt/tools/x", "/opt/tools/hammer", "/proc/sys/vm/swappiness"):
            assert (await sandbox.exec(f"echo no > {path}", 20)).exit_code != 0, path
        for path in (tmp_path / "tools" / "hammer", Path(__file__), Path("/etc/shadow")):
            assert (await sandbox.exec(f"cat {path}", 20)).exit_code == 1, path
    assert (tmp_path / "tools" / "hammer").read_text() == "bang\n"


async def test_nobody_inside_can_speak_for_process_1(docker_backend: DockerBackend, spec: SandboxSpec) -> None:
    async with docker_backend.create(spec) as sandbox:
        forge = "import os\nos.write(os.open('/proc/1/fd/1', os.O_WRONLY), b'forged')"
        for command in (f'python3 -c "{forge}"', "cat /proc/1/environ", "head -c1 /proc/1/mem", "ls /proc/1/root/"):
            result = await sandbox.exec(command, 20)
            assert result.exit_code != 0, command
            assert "ermission denied" in result.output, command


async def test_a_container_killed_from_outside_is_told_from_a_failing_command(
    docker_backend: DockerBackend, spec: SandboxSpec, api: Any
) -> None:
    async with docker_backend.create(spec) as sandbox:
        running = asyncio.create_task(sandbox.exec("sleep 100", timeout_s=200))
        await asyncio.sleep(0.2)
        api.kill(ours(api)[0])
        with pytest.raises(SandboxError, match="died"):
            await running
        with pytest.raises(SandboxError):
            await sandbox.read("README")


async def test_nothing_stays_after_stop_and_close(docker_backend: DockerBackend, spec: SandboxSpec, api: Any) -> None:
    async with docker_backend.create(spec) as sandbox:
        await sandbox.exec("setsid nohup sleep 1000 & sleep 1000 &", 20)
        async with sandbox.fork(await sandbox.snapshot()) as twin:
            await twin.snapshot()
    assert len(ours(api)) == 2
    await docker_backend.close()
    assert ours(api) == []


async def test_a_cancelled_task_takes_its_sandbox_along(
    docker_backend: DockerBackend, spec: SandboxSpec, api: Any
) -> None:
    async def use() -> None:
        async with docker_backend.create(spec) as sandbox:
            await sandbox.exec("sleep 1000", 2000)

    task = asyncio.create_task(use())
    assert await asyncio.to_thread(within, 20, api, 1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert ours(api) == []


async def test_a_start_that_is_cancelled_leaves_nothing(
    docker_backend: DockerBackend, spec: SandboxSpec, api: Any
) -> None:
    for delay_s in (0.0, 0.1, 0.3):
        entering = asyncio.create_task(docker_backend.create(spec).__aenter__())
        await asyncio.sleep(delay_s)
        entering.cancel()
        await asyncio.gather(entering, return_exceptions=True)
    await docker_backend.close()
    assert ours(api) == []


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
async def test_containers_go_with_their_parent(
    parent: "subprocess.Popen[bytes]", docker_backend: DockerBackend, spec: SandboxSpec, api: Any, number: int
) -> None:
    assert parent.stdout is not None
    assert [parent.stdout.readline(), parent.stdout.readline()] == [b"starting\n", b"ready\n"]
    assert len(ours(api)) == 2
    os.killpg(parent.pid, number)
    parent.wait(timeout=20)
    # A killed parent's snapshot stays until the next backend connects.
    assert await asyncio.to_thread(within, 10, api, 1 if number == signal.SIGKILL else 0)
    async with docker_backend.create(spec):
        assert len(ours(api)) == 1


@pytest.mark.parametrize("delay_s", [0.15, 0.25, 0.4])
async def test_a_parent_killed_while_it_starts_leaves_nothing_for_long(
    parent: "subprocess.Popen[bytes]", docker_backend: DockerBackend, spec: SandboxSpec, api: Any, delay_s: float
) -> None:
    assert parent.stdout is not None
    assert parent.stdout.readline() == b"starting\n"
    await asyncio.sleep(delay_s)
    parent.kill()
    parent.wait()
    await asyncio.sleep(0.3)
    async with docker_backend.create(spec):
        assert await asyncio.to_thread(within, 10, api, 1)
    await docker_backend.close()
    assert ours(api) == []


async def test_the_sweep_spares_the_living(
    parent: "subprocess.Popen[bytes]", docker_backend: DockerBackend, spec: SandboxSpec, api: Any
) -> None:
    assert parent.stdout is not None
    assert [parent.stdout.readline(), parent.stdout.readline()] == [b"starting\n", b"ready\n"]
    async with docker_backend.create(spec):
        assert len(ours(api)) == 3


def test_an_owner_is_gone_only_where_its_process_was() -> None:
    boot, namespace, pid, started = owner().split(".")
    assert not is_gone(owner())
    assert is_gone(f"{boot}.{namespace}.{pid}.1")
    assert is_gone(f"{boot}.{namespace}.4194305.{started}")
    assert not is_gone(f"{boot}.1.4194305.{started}")
    assert not is_gone(f"another-boot.{namespace}.4194305.{started}")
    assert not is_gone("rubbish")
    assert len(owner()) <= 63
