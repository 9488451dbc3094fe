"""A small Kubernetes API server over real HTTP, with one node on which pods are bubblewrap sandboxes.

It speaks what the backend uses: create, get, list, watch and delete of pods, and attach over a websocket (channels of
`v5.channel.k8s.io`). What goes wrong in real clusters can be ordered: errors, pods that never start, lost connections.
"""

import asyncio
import contextlib
import json
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from aiohttp import WSMsgType, web

_PODS = "/api/v1/namespaces/{namespace}/pods"
_SYSTEM = ("--ro-bind", "/usr", "/usr", "--symlink", "usr/bin", "/bin", "--symlink", "usr/lib", "/lib")
_SYSTEM_64 = (
    "--symlink",
    "usr/lib64",
    "/lib64",
    "--proc",
    "/proc",
    "--dev",
    "/dev",
    "--perms",
    "1777",
    "--dir",
    "/tmp",
)


@dataclass
class Pod:
    """A pod as the API shows it, and its process."""

    body: dict[str, Any]
    process: asyncio.subprocess.Process | None = None


@dataclass
class Cluster:
    """The server's state. `faults` are answers given instead, in turn: (method, part of the path, status, headers)."""

    url: str = ""
    pods: dict[str, Pod] = field(default_factory=dict)
    faults: list[tuple[str, str, int, dict[str, str]]] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)
    sockets: set[web.WebSocketResponse] = field(default_factory=set)
    version: int = 0
    changed: asyncio.Condition = field(default_factory=asyncio.Condition)
    loop: asyncio.AbstractEventLoop | None = None
    lingers_s: float = 0.0  # how long a deleted pod stays

    def phases(self) -> dict[str, str]:
        return {name: pod.body["status"]["phase"] for name, pod in list(self.pods.items())}

    def drop_connections(self) -> None:
        """Lose every attached connection, as a broken network does."""

        def drop() -> None:
            for socket in self.sockets:
                assert socket._req is not None
                assert socket._req.transport is not None
                socket._req.transport.abort()

        assert self.loop is not None
        self.loop.call_soon_threadsafe(drop)

    def add(self, name: str, labels: dict[str, str], phase: str) -> None:
        """Put a pod there that somebody else made."""
        metadata = {"name": name, "labels": labels, "namespace": "turnwise", "creationTimestamp": _now()}
        self.pods[name] = Pod(
            {"kind": "Pod", "metadata": metadata, "spec": {"containers": []}, "status": {"phase": phase}}
        )

    # The API.

    @web.middleware
    async def fail_if_told(self, request: web.Request, handler: Any) -> web.StreamResponse:
        self.requests.append(f"{request.method} {request.path}")
        for fault in self.faults:
            method, path, status, headers = fault
            if request.method == method and path in request.path:
                self.faults.remove(fault)
                if status == 201:  # carried out, and the answer lost
                    await handler(request)
                    status = 500
                return _status(status, "told to", headers)
        return await handler(request)

    async def create(self, request: web.Request) -> web.Response:
        body = await request.json()
        name = body["metadata"]["name"]
        if name in self.pods:
            return _status(409, f'pods "{name}" already exists')
        body["metadata"] |= {"namespace": request.match_info["namespace"], "creationTimestamp": _now()}
        body["status"] = {"phase": "Pending"}
        self.pods[name] = Pod(body)
        await self.change(self.pods[name])
        asyncio.get_running_loop().create_task(self.run(self.pods[name]))
        return web.json_response(body, status=201)

    async def get(self, request: web.Request) -> web.Response:
        pod = self.pods.get(request.match_info["name"])
        return _status(404, "not found") if pod is None else web.json_response(pod.body)

    async def delete(self, request: web.Request) -> web.Response:
        name = request.match_info["name"]
        pod = self.pods.get(name)
        if pod is None:
            return _status(404, "not found")
        if self.lingers_s:
            asyncio.get_running_loop().call_later(self.lingers_s, self.pods.pop, name, None)
        else:
            del self.pods[name]
        if pod.process is not None and pod.process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                pod.process.kill()
        return web.json_response(pod.body)

    async def list(self, request: web.Request) -> web.StreamResponse:
        label, _, name = request.query.get("labelSelector", ""), 0, request.query.get("fieldSelector", "")
        wanted = name.removeprefix("metadata.name=")
        if request.query.get("watch"):
            return await self.watch(request, wanted)
        items = [pod.body for pod in self.pods.values() if label in pod.body["metadata"]["labels"]]
        return web.json_response(
            {"kind": "PodList", "metadata": {"resourceVersion": str(self.version)}, "items": items}
        )

    async def watch(self, request: web.Request, name: str) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        await response.prepare(request)
        seen = int(request.query.get("resourceVersion", "0"))
        with contextlib.suppress(TimeoutError, ConnectionError):
            async with asyncio.timeout(float(request.query["timeoutSeconds"])), self.changed:
                while True:
                    pod = self.pods.get(name)
                    version = 0 if pod is None else int(pod.body["metadata"]["resourceVersion"])
                    if pod is not None and version > seen:
                        seen = version
                        event = {"type": "MODIFIED", "object": pod.body}
                        await response.write(json.dumps(event).encode() + b"\n")
                    await self.changed.wait()
        return response

    async def attach(self, request: web.Request) -> web.StreamResponse:
        pod = self.pods.get(request.match_info["name"])
        if pod is None or pod.process is None:
            return _status(404, "not found")
        assert pod.process.stdin is not None
        socket = web.WebSocketResponse(protocols=("v5.channel.k8s.io", "v4.channel.k8s.io"), max_msg_size=0)
        await socket.prepare(request)
        self.sockets.add(socket)
        sending = asyncio.create_task(self.send_output(pod, socket))
        try:
            async for message in socket:
                if message.type is WSMsgType.BINARY and message.data[0] == 0:
                    pod.process.stdin.write(message.data[1:])
                    with contextlib.suppress(ConnectionError):
                        await pod.process.stdin.drain()
        finally:
            self.sockets.discard(socket)
            sending.cancel()
            pod.process.stdin.close()  # stdinOnce
        return socket

    async def send_output(self, pod: Pod, socket: web.WebSocketResponse) -> None:
        assert pod.process is not None
        assert pod.process.stdout is not None
        while data := await pod.process.stdout.read(65_536):
            await socket.send_bytes(b"\1" + data)
        status = "Success" if await pod.process.wait() == 0 else "Failure"
        await socket.send_bytes(b"\3" + json.dumps({"metadata": {}, "status": status}).encode())
        await socket.close()

    # The node.

    async def change(self, pod: Pod, **status: Any) -> None:
        pod.body["status"] |= status
        self.version += 1
        pod.body["metadata"]["resourceVersion"] = str(self.version)
        async with self.changed:
            self.changed.notify_all()

    async def run(self, pod: Pod) -> None:
        container = pod.body["spec"]["containers"][0]
        if pod.body["spec"]["nodeSelector"]:
            message = "0/1 nodes are available: 1 node(s) didn't match Pod's node affinity/selector."
            condition = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message}
            await self.change(pod, conditions=[condition])
            return
        if "missing" in container["image"]:
            for reason in ("ContainerCreating", "ErrImagePull", "ImagePullBackOff"):
                await self.show(
                    pod, "Pending", waiting={"reason": reason, "message": f"{container['image']}: not found"}
                )
                await asyncio.sleep(0.05)
            return
        await self.show(pod, "Pending", waiting={"reason": "ContainerCreating"})
        pod.process = await asyncio.create_subprocess_exec(
            *_bubblewrap(container), stdin=-1, stdout=-1, stderr=asyncio.subprocess.DEVNULL
        )
        await self.show(pod, "Running", running={"startedAt": _now()})
        code = await pod.process.wait()
        reason, phase = ("Completed", "Succeeded") if code == 0 else ("Error", "Failed")
        await self.show(pod, phase, terminated={"exitCode": code & 0xFF, "reason": reason})

    async def show(self, pod: Pod, phase: str, **state: Any) -> None:
        shown = {"name": "sandbox", "image": "i", "imageID": "i", "ready": False, "restartCount": 0, "state": state}
        await self.change(pod, phase=phase, containerStatuses=[shown])


def _bubblewrap(container: dict[str, Any]) -> list[str]:
    capabilities = container["securityContext"]["capabilities"]["add"]
    arguments = ["bwrap", "--unshare-all", "--uid", "0", "--gid", "0", "--as-pid-1", "--die-with-parent", "--clearenv"]
    arguments += ["--cap-drop", "ALL", *(word for name in capabilities for word in ("--cap-add", f"CAP_{name}"))]
    arguments += ["--tmpfs", "/", *_SYSTEM, *_SYSTEM_64, "--dir", "/root", "--dir", "/etc", "--dir", "/testbed"]
    arguments += ["--ro-bind", sys.base_prefix, sys.base_prefix]  # the Python that tests' environments link to
    for mount in container["volumeMounts"]:
        arguments += ["--tmpfs", mount["mountPath"]]
    for variable in [{"name": "PATH", "value": "/usr/bin"}, {"name": "HOME", "value": "/root"}, *container["env"]]:
        arguments += ["--setenv", variable["name"], variable["value"]]
    return [*arguments, "--chdir", container["workingDir"], *container["command"]]


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _status(code: int, message: str, headers: dict[str, str] | None = None) -> web.Response:
    body = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "message": message, "code": code}
    return web.json_response(body, status=code, headers=headers)


@contextmanager
def serve() -> Iterator[Cluster]:
    """A cluster, served on loopback by a thread of its own until the block is left; its pods end with it."""
    started: Future[Cluster] = Future()
    ending: Future[None] = Future()

    async def main() -> None:
        cluster = Cluster(loop=asyncio.get_running_loop())
        app = web.Application(middlewares=[cluster.fail_if_told])
        app.add_routes(
            [
                web.post(_PODS, cluster.create),
                web.get(_PODS, cluster.list),
                web.get(_PODS + "/{name}", cluster.get),
                web.delete(_PODS + "/{name}", cluster.delete),
                web.get(_PODS + "/{name}/attach", cluster.attach),
            ]
        )
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        cluster.url = site._server.sockets[0].getsockname()  # type: ignore[union-attr]
        cluster.url = f"http://127.0.0.1:{cluster.url[1]}"
        started.set_result(cluster)
        await asyncio.wrap_future(ending)
        for pod in cluster.pods.values():
            if pod.process is not None and pod.process.returncode is None:
                pod.process.kill()
                await pod.process.wait()
        await runner.cleanup()

    thread = threading.Thread(target=asyncio.run, args=(main(),))
    thread.start()
    try:
        yield started.result(timeout=20)
    finally:
        ending.set_result(None)
        thread.join()


def kubeconfig(url: str) -> str:
    """A kubeconfig file's text for the server at `url`."""
    cluster = {"name": "c", "cluster": {"server": url}}
    context = {"name": "x", "context": {"cluster": "c", "user": "u"}}
    user = {"name": "u", "user": {"token": "secret"}}
    return json.dumps(
        {"apiVersion": "v1", "kind": "Config", "clusters": [cluster], "contexts": [context], "users": [user],
         "current-context": "x"}
    )  # fmt: skip
