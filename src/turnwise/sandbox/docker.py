"""The Docker backend: one container a sandbox, through the Docker SDK, on a local or a remote engine.

Nothing stays behind: a container's process 1 ends when the stream to it does (however this process ended), and the
engine removes an ended container by itself. What was created and never started, and snapshots (they are images), are
found by their label when the next backend connects.
"""

import contextlib
import logging
import secrets
import socket
import struct
import threading
import time
from collections.abc import Iterator, Sequence
from typing import Any

from turnwise.errors import InputError, SandboxError
from turnwise.sandbox.guest.main import CONTROL
from turnwise.sandbox.owner import LABEL, is_gone, owner
from turnwise.sandbox.remote import CAPABILITIES, ENV, Container, Fleet, RemoteSandbox
from turnwise.types import Limits, Mount, SandboxSpec

_CALL_S = 120
_ERRORS = 2
_RECEIVE_BYTES = 1 << 18
_REMOVE_S = 60.0
# What an ended run left and the engine does not let go of may not hold up a new run for long.
_SWEEP_S = 2.0
_NANO = 1_000_000_000
# Process 1 and the command shell count too.
_OWN_PROCESSES = 2
_log = logging.getLogger(__name__)


class AttachedStream:
    """The socket that an attached container's stdin and stdout go through; what it says on stderr is kept as `errors`.

    Frames: one byte that tells the stream, three of padding, four of size, the data (Docker's "Attach to a container").
    """

    def __init__(self, connection: Any) -> None:
        self._connection = connection
        self._socket: socket.socket = getattr(connection, "_sock", connection)
        self._socket.settimeout(None)
        self.errors = b""

    def send(self, data: bytes) -> None:
        """See `line.Stream.send`."""
        self._socket.sendall(data)

    def receive(self) -> bytes:
        """See `line.Stream.receive`."""
        while header := self._exactly(8):
            kind, size = struct.unpack(">BxxxL", header)
            data = self._exactly(size)
            if kind != _ERRORS:
                return data
            self.errors = (self.errors + data)[-2000:]
        return b""

    def _exactly(self, size: int) -> bytes:
        parts = []
        while size > 0:
            part = self._socket.recv(min(size, _RECEIVE_BYTES))
            if not part:
                return b""
            parts.append(part)
            size -= len(part)
        return b"".join(parts)

    def close(self) -> None:
        """See `line.Stream.close`."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._connection.close()


class DockerContainer:
    """One container; see `remote.Container`."""

    def __init__(self, api: Any, name: str, stream: AttachedStream) -> None:
        self._api = api
        self.name = name
        self.stream = stream

    def cause_of_death(self) -> str:
        """See `remote.Container.cause_of_death`; what the engine still knows of a container that removes itself."""
        import docker.errors

        said = self.stream.errors.decode(errors="replace").strip().splitlines()
        try:
            state = self._api.inspect_container(self.name)["State"]
        except (docker.errors.APIError, OSError):
            return said[-1] if said else "its container is gone"
        out_of_memory = ", out of memory" if state.get("OOMKilled") else ""
        return "; ".join([f"exit status {state.get('ExitCode')}{out_of_memory}", *said[-1:]])

    def remove(self) -> None:
        """See `remote.Container.remove`."""
        remove_container(self._api, self.name)


def remove_container(api: Any, name: str, within_s: float = _REMOVE_S) -> None:
    """Kill and remove a container, and wait until it is gone. Raises SandboxError where the engine does not do it."""
    import docker.errors

    deadline = time.monotonic() + within_s
    while True:
        try:
            api.remove_container(name, force=True, v=True)
        except docker.errors.NotFound:
            return
        except (docker.errors.APIError, OSError) as error:  # "removal already in progress": it removes itself
            failure = error
            if time.monotonic() > deadline:
                raise SandboxError(f"cannot remove container {name}: {failure}") from error
            time.sleep(0.02)


class DockerEngine:
    """A connection to one engine; see `remote.Engine`."""

    binds = True
    saves = True

    def __init__(self, api: Any, base_image: str, network: str, pull_timeout_s: float) -> None:
        self._api = api
        self._base_image = base_image
        self._network = network
        self._pull_timeout_s = pull_timeout_s
        self._run = secrets.token_hex(4)
        self._labels = {LABEL: owner()}
        self._pulling: dict[str, threading.Lock] = {}
        self._saved: list[str] = []
        with _told("ask the Docker engine about itself"):
            self._limits_disks = _limits_disks(api.info())
        sweep(api)

    def start(self, key: str, spec: SandboxSpec, command: Sequence[str], image: str) -> DockerContainer:
        """See `remote.Engine.start`."""
        image = image or spec.image or self._base_image
        if not image:
            raise InputError("a docker sandbox of a directory needs an image to run it in: DockerBackend(base_image=…)")
        if image not in self._saved:
            self._need(image)
        name = f"turnwise-{self._run}-{key}"
        try:
            with _told(f"start a container of image {image}"):
                return self._start(name, image, spec, command)
        except SandboxError:
            remove_container(self._api, name)
            raise

    def _start(self, name: str, image: str, spec: SandboxSpec, command: Sequence[str]) -> DockerContainer:
        self._api.create_container(
            image,
            name=name,
            entrypoint=[command[0]],
            command=list(command[1:]),
            environment={**ENV, **spec.env},
            working_dir="/",
            hostname="sandbox",
            stdin_open=True,
            labels=self._labels,
            healthcheck={"test": ["NONE"]},
            host_config=self._host_config(spec),
        )
        streams = {"stdin": 1, "stdout": 1, "stderr": 1, "stream": 1}
        stream = AttachedStream(self._api.attach_socket(name, params=streams))
        try:
            self._api.start(name)
        except BaseException:
            stream.close()
            raise
        return DockerContainer(self._api, name, stream)

    def _host_config(self, spec: SandboxSpec) -> Any:
        limits = spec.limits
        return self._api.create_host_config(
            auto_remove=True,
            network_mode=self._network if spec.network else "none",
            mem_limit=f"{limits.memory_mb}m",
            memswap_limit=f"{limits.memory_mb}m",
            pids_limit=limits.processes + _OWN_PROCESSES,
            nano_cpus=int(limits.cpus * _NANO),
            cap_drop=["ALL"],
            cap_add=list(CAPABILITIES),
            security_opt=["no-new-privileges"],
            log_config={"type": "none"},
            mounts=[_bind(mount) for mount in spec.mounts],
            tmpfs={CONTROL: "rw,nosuid,nodev,mode=1777,size=16m"},
            storage_opt=self._storage(limits),
        )

    def _storage(self, limits: Limits) -> dict[str, str] | None:
        return {"size": f"{limits.disk_mb}m"} if self._limits_disks else None

    def _need(self, image: str) -> None:
        """Have `image` at the engine. Raises SandboxError naming it, and the reason."""
        import docker.errors

        with self._pulling.setdefault(image, threading.Lock()), _told(f"look up image {image}"):
            try:
                self._api.inspect_image(image)
            except docker.errors.ImageNotFound:
                self._pull(image)

    def _pull(self, image: str) -> None:
        deadline = time.monotonic() + self._pull_timeout_s
        with _told(f"pull image {image}"):
            for event in self._api.pull(image, stream=True, decode=True):
                if "error" in event:
                    raise SandboxError(f"cannot pull image {image}: {event['error']}")
                if time.monotonic() > deadline:
                    raise SandboxError(f"cannot pull image {image} within {self._pull_timeout_s:.0f} s")

    def save(self, container: Container) -> str:
        """See `remote.Engine.save`: an image without a name."""
        assert isinstance(container, DockerContainer)
        with _told("take a snapshot"):
            image: str = self._api.commit(container.name, conf={"Labels": self._labels})["Id"]
        self._saved.append(image)
        return image

    def close(self) -> None:
        """See `remote.Engine.close`."""
        for image in reversed(self._saved):
            remove_image(self._api, image)
        self._api.close()


@contextlib.contextmanager
def _told(what: str) -> Iterator[None]:
    """Turns the client's errors into SandboxError, with the engine's own words."""
    import docker.errors
    import urllib3.exceptions

    try:
        yield
    except (docker.errors.APIError, urllib3.exceptions.HTTPError, OSError) as error:
        raise SandboxError(f"cannot {what}: {error}") from error


@contextlib.contextmanager
def _warned(what: str) -> Iterator[None]:
    """Turns the client's errors, and SandboxError, into a warning: for what the next backend will try again."""
    try:
        with _told(what):
            yield
    except SandboxError as error:
        _log.warning("%s", error)


def _bind(mount: Mount) -> Any:
    # Not the older `binds`: with those, an engine makes folders on its host where there are none.
    import docker.types

    return docker.types.Mount(mount.inside, str(mount.host.resolve()), type="bind", read_only=True)


def _limits_disks(info: dict[str, Any]) -> bool:
    """Whether the engine's storage driver holds a container to a size. (overlay2 does on xfs, if mounted with pquota,
    which the engine does not tell.)"""
    return info.get("Driver") in ("btrfs", "zfs", "windowsfilter")


def remove_image(api: Any, image: str) -> None:
    """Remove a snapshot; one that others were made from goes with the last of them, what stays with a later sweep."""
    import docker.errors

    with contextlib.suppress(docker.errors.APIError, OSError):
        api.remove_image(image, force=True)


def sweep(api: Any) -> None:
    """Remove the containers and snapshots whose owner is gone; what cannot be removed is told in a warning."""
    wanted = {"label": [LABEL]}
    with _warned("look for containers of ended runs"):
        for container in api.containers(all=True, filters=wanted):
            if is_gone(container["Labels"][LABEL]):
                with _warned("remove a container of an ended run"):
                    remove_container(api, container["Id"], _SWEEP_S)
    with _warned("look for snapshots of ended runs"):
        images = [image for image in api.images(all=True, filters=wanted) if is_gone(image["Labels"][LABEL])]
        for image in sorted(images, key=lambda image: -image["Created"]):
            remove_image(api, image["Id"])


def connect(host: str) -> Any:
    """The client of a Docker engine. Raises InputError when there is no SDK, or no engine answers."""
    try:
        import docker
        import docker.errors
    except ModuleNotFoundError:
        raise InputError("the docker backend needs the Docker SDK: pip install 'turnwise[docker]'") from None
    options: dict[str, Any] = {"timeout": _CALL_S, "max_pool_size": 100}
    try:
        client = docker.DockerClient(base_url=host, **options) if host else docker.from_env(**options)
        client.ping()
    except (docker.errors.DockerException, OSError) as error:
        raise InputError(
            f"no Docker engine answers at {host or 'DOCKER_HOST or its default'}: start one, or give its address "
            f"({error})"
        ) from error
    return client.api


class DockerBackend:
    """Sandboxes in containers of a Docker engine.

    A spec's `image` is taken from the engine, or pulled. A spec's `root` is copied into a container of `base_image`.

    >>> backend = DockerBackend(base_image="python:3.12")
    >>> backend.name, backend.isolates
    ('docker', True)
    """

    name = "docker"
    isolates = True

    def __init__(
        self, base_image: str = "", host: str = "", network: str = "bridge", pull_timeout_s: float = 1_800.0
    ) -> None:
        """`host` is the engine's address (default: DOCKER_HOST, or the local socket). `network` is the engine's network
        that sandboxes with `spec.network` join."""
        self._fleet = Fleet(self.name, lambda: DockerEngine(connect(host), base_image, network, pull_timeout_s))

    def create(self, spec: SandboxSpec) -> RemoteSandbox:
        """See `protocol.SandboxBackend.create`."""
        return RemoteSandbox(self._fleet, spec)

    async def close(self) -> None:
        """See `protocol.SandboxBackend.close`."""
        await self._fleet.close()
