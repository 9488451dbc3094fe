"""What only the Kubernetes backend has: a cluster between it and its sandboxes, with all that may go wrong there."""

import asyncio
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path

import pytest

from turnwise.errors import InputError, SandboxError
from turnwise.sandbox import Sandbox
from turnwise.sandbox.kubernetes import KubernetesBackend
from turnwise.sandbox.owner import LABEL, owner
from turnwise.sandbox.pod import PodSettings, manifest
from turnwise.types import Limits, Mount, SandboxSpec

from .cluster import Cluster

_PARENT = """
import asyncio, sys
from pathlib import Path
from turnwise.sandbox.kubernetes import KubernetesBackend
from turnwise.types import SandboxSpec

async def main(root, kubeconfig):
    backend = KubernetesBackend(base_image="base", kubeconfig=kubeconfig)
    async with backend.create(SandboxSpec(Path(root))) as sandbox:
        print("ready", flush=True)
        await sandbox.exec("sleep 1000", 2000)

asyncio.run(main(*sys.argv[1:]))
"""


@pytest.fixture
async def pods(cluster: Cluster, cluster_config: str) -> AsyncIterator[KubernetesBackend]:
    settings = PodSettings(start_timeout_s=2.0)
    backend = KubernetesBackend(base_image="base", kubeconfig=cluster_config, settings=settings)
    yield backend
    await backend.close()
    cluster.faults.clear()
    assert cluster.pods == {}


async def within(seconds: float, condition: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:  # noqa: ASYNC110 - the cluster lives in another thread
        await asyncio.sleep(0.02)
    return condition()


async def works(sandbox: Sandbox) -> bool:
    return (await sandbox.exec("echo works", 20)).output == "works\n"


def test_a_pod_asks_for_what_the_paper_asked_for_and_no_more_than_its_limits(root: Path) -> None:
    settings = PodSettings(service_account="runner", node_selector={"pool": "cpu"}, tolerations=({"key": "spot"},))
    spec = SandboxSpec(root, env={"A": "1"}, limits=Limits(memory_mb=4096, cpus=2, disk_mb=100))
    pod = manifest("p", spec, "image:1", ("sh",), settings)["spec"]
    container = pod["containers"][0]
    assert container["resources"] == {
        "requests": {"cpu": "0.5", "memory": "2048Mi"},
        "limits": {"cpu": "2", "memory": "4096Mi", "ephemeral-storage": "101Mi"},
    }
    assert (pod["restartPolicy"], pod["automountServiceAccountToken"]) == ("Never", False)
    assert (pod["serviceAccountName"], pod["nodeSelector"], pod["tolerations"]) == (
        "runner", {"pool": "cpu"}, [{"key": "spot"}],
    )  # fmt: skip
    assert {"name": "A", "value": "1"} in container["env"]
    small = manifest("p", SandboxSpec(root, limits=Limits(memory_mb=512, cpus=0.25)), "i", ("sh",), settings)
    assert small["spec"]["containers"][0]["resources"]["requests"] == {"cpu": "0.25", "memory": "512Mi"}


async def test_an_image_that_cannot_be_pulled_is_named_with_the_reason(pods: KubernetesBackend) -> None:
    with pytest.raises(SandboxError, match="image missing:1 cannot start: ImagePullBackOff: missing:1: not found"):
        async with pods.create(SandboxSpec(None, image="missing:1")):
            pass


async def test_a_pod_that_no_node_takes_is_given_up_with_the_reason(cluster_config: str, cluster: Cluster) -> None:
    settings = PodSettings(node_selector={"pool": "none"}, start_timeout_s=0.5)
    backend = KubernetesBackend(kubeconfig=cluster_config, settings=settings)
    with pytest.raises(SandboxError, match="did not start within 0 s: Unschedulable: 0/1 nodes are available"):
        async with backend.create(SandboxSpec(None, image="base")):
            pass
    await backend.close()
    assert cluster.pods == {}


@pytest.mark.parametrize("fault", [(429, {"Retry-After": "0"}), (500, {}), (503, {}), (201, {})])
async def test_a_busy_api_server_is_asked_again(
    pods: KubernetesBackend, cluster: Cluster, spec: SandboxSpec, fault: tuple[int, dict[str, str]]
) -> None:
    # (201: the server did what was asked, but its answer was lost; then it says 409.)
    cluster.faults += [
        ("POST", "pods", *fault),
        ("GET", "pods/turnwise", 503, {}),
        ("DELETE", "pods/turnwise", 500, {}),
    ]
    async with pods.create(spec) as sandbox:
        assert await works(sandbox)
    assert cluster.faults == []
    assert len(cluster.pods) == 0


async def test_a_refused_request_is_told_in_the_servers_words(
    pods: KubernetesBackend, cluster: Cluster, spec: SandboxSpec
) -> None:
    cluster.faults += [("POST", "pods", 403, {})]
    with pytest.raises(SandboxError, match=r"cannot start a pod of image base: 403 .*told to"):
        async with pods.create(spec):
            pass


async def test_a_failed_attach_leaves_no_pod(pods: KubernetesBackend, cluster: Cluster, spec: SandboxSpec) -> None:
    cluster.faults += [("GET", "attach", 500, {})]
    with pytest.raises(SandboxError, match="cannot start a pod"):
        async with pods.create(spec):
            pass
    assert cluster.pods == {}


async def test_a_connection_lost_under_a_command_is_a_dead_sandbox(
    pods: KubernetesBackend, cluster: Cluster, spec: SandboxSpec
) -> None:
    async with pods.create(spec) as sandbox:
        running = asyncio.create_task(sandbox.exec("sleep 100", timeout_s=200))
        await asyncio.sleep(0.3)
        cluster.drop_connections()
        with pytest.raises(SandboxError, match="died"):
            await running
        assert await within(10, lambda: "Running" not in cluster.phases().values())
        with pytest.raises(SandboxError):
            await sandbox.read("README")


async def test_a_pod_deleted_under_a_command_is_a_dead_sandbox(
    pods: KubernetesBackend, cluster: Cluster, spec: SandboxSpec
) -> None:
    async with pods.create(spec) as sandbox:
        running = asyncio.create_task(sandbox.exec("sleep 100", timeout_s=200))
        await asyncio.sleep(0.3)
        pod = cluster.pods.pop(next(iter(cluster.pods)))
        assert pod.process is not None
        pod.process.kill()
        with pytest.raises(SandboxError, match="its pod is gone"):
            await running


async def test_a_killed_parents_pod_ends_and_the_next_backend_deletes_it(
    pods: KubernetesBackend, cluster: Cluster, cluster_config: str, spec: SandboxSpec
) -> None:
    command = [sys.executable, "-c", _PARENT, str(spec.root), cluster_config]
    parent = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    assert parent.stdout is not None
    assert await parent.stdout.readline() == b"ready\n"
    parent.kill()
    await parent.wait()
    assert await within(10, lambda: list(cluster.phases().values()) == ["Succeeded"])
    async with pods.create(spec):
        assert list(cluster.phases().values()) == ["Running"]


async def test_the_sweep_takes_the_dead_and_spares_the_living(
    pods: KubernetesBackend, cluster: Cluster, spec: SandboxSpec
) -> None:
    place = owner().rsplit(".", 2)[0]
    cluster.add("dead", {LABEL: f"{place}.4194305.7"}, "Running")
    cluster.add("finished", {LABEL: "elsewhere.1.2.3"}, "Failed")
    cluster.add("living", {LABEL: "elsewhere.1.2.3"}, "Running")
    cluster.add("waiting", {LABEL: owner()}, "Pending")
    cluster.add("strange", {"app": "database"}, "Failed")
    async with pods.create(spec):
        assert {"living", "waiting", "strange"} <= set(cluster.pods)
        assert not {"dead", "finished"} & set(cluster.pods)
    for name in ("living", "waiting", "strange"):
        del cluster.pods[name]


async def test_a_pod_that_takes_its_time_to_go_is_deleted_once(
    pods: KubernetesBackend, cluster: Cluster, spec: SandboxSpec
) -> None:
    async with pods.create(spec):
        cluster.requests.clear()
        cluster.lingers_s = 1.5
    cluster.lingers_s = 0.0
    assert cluster.pods == {}
    assert [request.split()[0] for request in cluster.requests].count("DELETE") == 1
    assert len(cluster.requests) <= 7


async def test_a_start_that_is_cancelled_leaves_no_pod(
    pods: KubernetesBackend, cluster: Cluster, spec: SandboxSpec
) -> None:
    for delay_s in (0.0, 0.03, 0.1):
        entering = asyncio.create_task(pods.create(spec).__aenter__())
        await asyncio.sleep(delay_s)
        entering.cancel()
        await asyncio.gather(entering, return_exceptions=True)
    await pods.close()
    assert cluster.pods == {}


async def test_moved_replaced_and_deleted_things_come_through_a_fork(
    pods: KubernetesBackend, spec: SandboxSpec
) -> None:
    before = (
        "mv pkg moved; echo more > moved/new; rm README; mkdir README; echo x > README/x; ln -s /nowhere link; "
        "ln moved/code.py hard; mkdir -p /opt/lib; echo y > /opt/lib/y; chmod 700 moved/deep; mkfifo pipe"
    )
    show = (
        "find . /opt -path ./.git -prune -o -printf '%p %y %l %m %n\\n' | sort; cat moved/code.py hard; git status -s"
    )
    async with pods.create(spec) as sandbox:
        await sandbox.exec(before, 20)
        seen = (await sandbox.exec(show, 20)).output
        async with sandbox.fork(await sandbox.snapshot()) as twin:
            assert (await twin.exec(show, 20)).output == seen
            assert "./moved/deep/data.bin f" in seen
            await twin.exec("mv moved pkg; rm -r README /opt/lib hard link", 20)
            seen = (await twin.exec(show, 20)).output
            ref = await twin.snapshot()
        async with sandbox.fork(ref) as grandchild:
            assert (await grandchild.exec(show, 20)).output == seen


async def test_a_crowd_past_the_limit_is_ended_where_no_control_group_does_it(
    pods: KubernetesBackend, spec: SandboxSpec
) -> None:
    count = "cat /proc/[0-9]*/comm | grep -c sleep"
    async with pods.create(spec) as sandbox:
        few = f"for i in $(seq {spec.limits.processes - 6}); do sleep 100 & done; sleep 1; {count}"
        assert int((await sandbox.exec(few, 20)).output) == spec.limits.processes - 6
        await sandbox.exec("kept=yes; for i in 1 2 3 4 5 6 7 8; do sleep 100 & done; sleep 1.5", 20)
        left = await sandbox.exec(f"{count}; echo $kept", 20)
        assert left.output.splitlines()[-2:] == ["0", "yes"]  # before that bash may tell which of its jobs were killed
        assert await works(sandbox)


async def test_a_mounted_file_is_there(pods: KubernetesBackend, spec: SandboxSpec, tmp_path: Path) -> None:
    (tmp_path / "hammer").write_text("bang\n")
    async with pods.create(replace(spec, mounts=(Mount(tmp_path / "hammer", "/opt/tools/mallet"),))) as sandbox:
        assert await sandbox.read("/opt/tools/mallet") == b"bang\n"


async def test_without_a_cluster_one_sentence_says_so(tmp_path: Path, spec: SandboxSpec) -> None:
    backend = KubernetesBackend(base_image="base", kubeconfig=str(tmp_path / "none"))
    with pytest.raises(InputError, match="no Kubernetes cluster"):
        async with backend.create(spec):
            pass
    await backend.close()


def test_without_the_client_one_sentence_says_what_to_install() -> None:
    program = (
        "import sys; sys.modules['kubernetes'] = None\nfrom turnwise.errors import InputError\n"
        "from turnwise.sandbox.kubernetes import load_configuration\n"
        "try: load_configuration('', '')\nexcept InputError as error: print(error)"
    )
    told = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert "pip install 'turnwise[kubernetes]'" in told
