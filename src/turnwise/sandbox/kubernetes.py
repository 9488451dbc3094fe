"""The Kubernetes backend: one pod a sandbox, through the official client.

The pod's process 1 is attached to over a websocket. Nothing stays behind: when that connection ends, however this
process ended, process 1 ends, and with it the pod's use of the cluster; `stop` deletes the pod, and each new backend
deletes those that their owners left, found by their label.
"""

import contextlib
import functools
import os
import secrets
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from typing import Any, TypeVar

from turnwise.errors import InputError, SandboxError
from turnwise.sandbox.owner import LABEL, is_gone
from turnwise.sandbox.pod import CONTAINER, PodSettings, hopeless, manifest, why
from turnwise.sandbox.remote import Container, Fleet, RemoteSandbox
from turnwise.types import SandboxSpec

_T = TypeVar("_T")
_CALL_S = 60.0
_WATCH_S = 10
_UPDATE_S = 5.0
_REMOVE_S = 60.0
# Between two looks whether a pod is gone: at first, and when it takes its time.
_LOOK_S, _LONGEST_LOOK_S = 0.1, 2.0
_RETRIES = 6
_RETRIED = (429, 500, 502, 503, 504)
_ENDED = ("Succeeded", "Failed")
_NOT_FOUND, _CONFLICT, _GONE = 404, 409, 410


class PodStream:
    """The websocket to a pod's stdin and stdout; see `line.Stream`."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection  # kubernetes.stream.ws_client.WSClient
        self._socket: socket.socket = connection.sock.sock

    def send(self, data: bytes) -> None:
        """See `line.Stream.send`."""
        import websocket

        try:
            self._connection.write_stdin(data)
        except websocket.WebSocketException as error:
            raise OSError(str(error)) from error

    def receive(self) -> bytes:
        """See `line.Stream.receive`."""
        import websocket

        try:
            while self._connection.is_open():
                self._connection.update(timeout=_UPDATE_S)
                # All of stdout that came, and forgotten by the client, which else would keep it for good.
                if data := self._connection.read_all():
                    received: bytes = data
                    return received
        except (websocket.WebSocketException, AttributeError) as error:  # the latter: it was closed under the client
            raise OSError(str(error)) from error
        return b""

    def close(self) -> None:
        """See `line.Stream.close`. No closing handshake: it would wait for the other side."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)


class PodContainer:
    """One pod; see `remote.Container`."""

    def __init__(self, engine: "KubernetesEngine", name: str, stream: PodStream) -> None:
        self._engine = engine
        self.name = name
        self.stream = stream

    def cause_of_death(self) -> str:
        """See `remote.Container.cause_of_death`."""
        return self._engine.cause_of_death(self.name)

    def remove(self) -> None:
        """See `remote.Container.remove`."""
        self._engine.remove(self.name)


class KubernetesEngine:
    """A connection to one cluster; see `remote.Engine`."""

    binds = False
    saves = False

    def __init__(self, configuration: Any, base_image: str, settings: PodSettings) -> None:
        self._configuration = configuration
        self._base_image = base_image
        self._settings = settings
        self._run = secrets.token_hex(4)
        self._core = self._new_core()
        with _told("list pods"):
            self._sweep()

    def _new_core(self) -> Any:
        from kubernetes import client

        return client.CoreV1Api(client.ApiClient(self._configuration))

    def start(self, key: str, spec: SandboxSpec, command: Sequence[str], image: str) -> PodContainer:
        """See `remote.Engine.start`."""
        image = image or spec.image or self._base_image
        if not image:
            raise InputError(
                "a kubernetes sandbox of a directory needs an image to run it in: KubernetesBackend(base_image=…)"
            )
        name = f"turnwise-{self._run}-{key}"
        try:
            with _told(f"start a pod of image {image}"):
                self._create(manifest(name, spec, image, command, self._settings))
                self._wait_until_running(name, image)
                return PodContainer(self, name, self._attach(name))
        except BaseException:
            self.remove(name)
            raise

    def _create(self, pod: dict[str, Any]) -> None:
        from kubernetes.client.exceptions import ApiException

        try:
            self._core.create_namespaced_pod(self._settings.namespace, pod, _request_timeout=_CALL_S)
        except ApiException as error:
            if error.status != _CONFLICT:  # that is an earlier try, which was carried out and not answered
                raise

    def _wait_until_running(self, name: str, image: str) -> None:
        deadline = time.monotonic() + self._settings.start_timeout_s
        pod = self._read(name)
        while pod.status.phase != "Running":
            if hopeless(pod):
                raise SandboxError(f"the pod of image {image} cannot start: {why(pod)}")
            if time.monotonic() > deadline:
                limit_s = self._settings.start_timeout_s
                raise SandboxError(f"the pod of image {image} did not start within {limit_s:.0f} s: {why(pod)}")
            pod = self._next(pod, deadline)

    def _next(self, pod: Any, deadline: float) -> Any:
        """The pod's next state; after a while, the one that it is in."""
        from kubernetes import watch
        from kubernetes.client.exceptions import ApiException

        left_s = max(1, min(_WATCH_S, int(deadline - time.monotonic())))
        try:
            for event in watch.Watch().stream(
                self._core.list_namespaced_pod,
                self._settings.namespace,
                field_selector=f"metadata.name={pod.metadata.name}",
                resource_version=pod.metadata.resource_version,
                timeout_seconds=left_s,
                _request_timeout=left_s + _CALL_S,
            ):
                return event["object"]
        except ApiException as error:
            if error.status != _GONE:  # too old a version to watch from
                raise
        return self._read(pod.metadata.name)

    def _read(self, name: str) -> Any:
        return self._core.read_namespaced_pod(name, self._settings.namespace, _request_timeout=_CALL_S)

    def _attach(self, name: str) -> PodStream:
        from kubernetes.stream import stream

        # A client of its own: `stream` changes the one that it is given, which others are using.
        attach = self._new_core().connect_get_namespaced_pod_attach
        connect = functools.partial(stream, attach, name, self._settings.namespace, container=CONTAINER, stdin=True)
        options = {"stdout": True, "stderr": False, "tty": False, "_preload_content": False, "binary": True}
        return PodStream(_within(_CALL_S, lambda: connect(**options)))

    def cause_of_death(self, name: str) -> str:
        """What the cluster says of a pod that has ended, or lost its connection."""
        from kubernetes.client.exceptions import ApiException

        try:
            return why(self._read(name))
        except (ApiException, OSError) as error:
            return "its pod is gone" if getattr(error, "status", None) == _NOT_FOUND else f"its pod is unknown: {error}"

    def remove(self, name: str) -> None:
        """Delete a pod at once, and wait until it is gone. Raises SandboxError where it does not go."""
        from kubernetes.client.exceptions import ApiException

        deadline, pause_s = time.monotonic() + _REMOVE_S, _LOOK_S
        try:
            with _told(f"delete pod {name}"):
                self._core.delete_namespaced_pod(
                    name, self._settings.namespace, grace_period_seconds=0, _request_timeout=_CALL_S
                )
                while self._read(name) and time.monotonic() < deadline:
                    time.sleep(pause_s)
                    pause_s = min(2 * pause_s, _LONGEST_LOOK_S)
            raise SandboxError(f"pod {name} is still there {_REMOVE_S:.0f} s after it was deleted")
        except SandboxError as error:
            if not (isinstance(error.__cause__, ApiException) and error.__cause__.status == _NOT_FOUND):
                raise

    def _sweep(self) -> None:
        pods = self._core.list_namespaced_pod(self._settings.namespace, label_selector=LABEL, _request_timeout=_CALL_S)
        for pod in pods.items:
            age_s = (datetime.now(UTC) - pod.metadata.creation_timestamp).total_seconds()
            if (
                is_gone(pod.metadata.labels[LABEL])
                or pod.status.phase in _ENDED
                or (pod.status.phase == "Pending" and age_s > self._settings.lifetime_s)
            ):
                self.remove(pod.metadata.name)

    def save(self, container: Container) -> str:
        """See `remote.Engine.save`; a cluster cannot."""
        return ""

    def close(self) -> None:
        """See `remote.Engine.close`."""
        self._core.api_client.close()


@contextlib.contextmanager
def _told(what: str) -> Iterator[None]:
    """Turns the client's errors into SandboxError, with the API server's own words."""
    import urllib3.exceptions
    from kubernetes.client.exceptions import ApiException

    try:
        yield
    except ApiException as error:
        said = " ".join(str(error.body or "").split())[:500]
        raise SandboxError(f"cannot {what}: {error.status} {error.reason} {said}".rstrip()) from error
    except (urllib3.exceptions.HTTPError, OSError) as error:
        raise SandboxError(f"cannot {what}: {error}") from error


def _within(seconds: float, work: Callable[[], _T]) -> _T:
    """`work`'s result, or TimeoutError: for what takes no time-out of its own (its thread may then go on for ever)."""
    results: list[_T] = []
    errors: list[Exception] = []

    def run() -> None:
        try:
            results.append(work())
        except Exception as error:
            errors.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(seconds)
    if errors:
        raise errors[0]
    if not results:
        raise TimeoutError(f"no answer within {seconds:.0f} s")
    return results[0]


def load_configuration(kubeconfig: str, context: str) -> Any:
    """The client's configuration. Raises InputError when the client is not installed, or no cluster is configured."""
    try:
        import urllib3
        from kubernetes import client, config
    except ModuleNotFoundError:
        raise InputError("the kubernetes backend needs its client: pip install 'turnwise[kubernetes]'") from None
    configuration = client.Configuration()
    try:
        if not kubeconfig and not context and "KUBERNETES_SERVICE_HOST" in os.environ:
            config.load_incluster_config(configuration)
        else:
            config.load_kube_config(kubeconfig or None, context or None, configuration)
    except (config.ConfigException, OSError) as error:
        raise InputError(
            f"no Kubernetes cluster: {error}; give a kubeconfig file, or set KUBECONFIG, or run inside a cluster"
        ) from error
    # A request is tried again when the API server is busy or was not reached; 429 says when.
    configuration.retries = urllib3.Retry(
        _RETRIES, status_forcelist=_RETRIED, allowed_methods=None, backoff_factor=0.2, raise_on_status=False
    )
    return configuration


class KubernetesBackend:
    """Sandboxes in pods of a Kubernetes cluster.

    A spec's `root`, and its mounts, are copied into the pod (a `root` into one of `base_image`). Whether a pod has
    network is up to the network policies of deploy/kubernetes.yaml, which go by the label `turnwise.network`.

    >>> backend = KubernetesBackend(settings=PodSettings(namespace="turnwise"))
    >>> backend.name, backend.isolates
    ('kubernetes', True)
    """

    name = "kubernetes"
    isolates = True

    def __init__(
        self, base_image: str = "", kubeconfig: str = "", context: str = "", settings: PodSettings | None = None
    ) -> None:
        """`kubeconfig` and `context`: which cluster; by default the one that this process runs in, or kubectl's."""
        chosen = settings or PodSettings()
        self._fleet = Fleet(
            self.name, lambda: KubernetesEngine(load_configuration(kubeconfig, context), base_image, chosen)
        )

    def create(self, spec: SandboxSpec) -> RemoteSandbox:
        """See `protocol.SandboxBackend.create`."""
        return RemoteSandbox(self._fleet, spec)

    async def close(self) -> None:
        """See `protocol.SandboxBackend.close`."""
        await self._fleet.close()
