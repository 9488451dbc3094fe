"""What a sandbox's pod is made of, and how a pod's state is told in a sentence."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from turnwise.sandbox.guest.main import CONTROL
from turnwise.sandbox.owner import LABEL, owner
from turnwise.sandbox.remote import CAPABILITIES, ENV
from turnwise.types import SandboxSpec

CONTAINER = "sandbox"
NETWORK_LABEL = "turnwise.network"
_MIB = 1 << 20
# What no waiting helps against. (An image that is being pulled again after an error waits as ErrImagePull.)
_HOPELESS = frozenset(
    {
        *("ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull", "ImageInspectError", "RegistryUnavailable"),
        *("CreateContainerConfigError", "CreateContainerError", "RunContainerError", "CrashLoopBackOff"),
    }
)


@dataclass(frozen=True)
class PodSettings:
    """Where and how pods run. `cpu_request` and `memory_request_mb` are what a pod asks the scheduler for (the paper's:
    appendix D), at most its limits; `lifetime_s` is after how long the cluster ends a pod that nobody ended.

    >>> PodSettings(namespace="agents", node_selector={"pool": "cpu"}).memory_request_mb
    2048
    """

    namespace: str = "turnwise"
    service_account: str = ""
    image_pull_policy: str = "IfNotPresent"
    image_pull_secrets: tuple[str, ...] = ()
    node_selector: Mapping[str, str] = field(default_factory=dict)
    tolerations: tuple[Mapping[str, str], ...] = ()
    cpu_request: float = 0.5
    memory_request_mb: int = 2048
    start_timeout_s: float = 900.0
    lifetime_s: float = 21_600.0


def manifest(name: str, spec: SandboxSpec, image: str, command: Sequence[str], settings: PodSettings) -> dict[str, Any]:
    """The pod to create."""
    network = "open" if spec.network else "none"
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": {LABEL: owner(), NETWORK_LABEL: network}},
        "spec": {
            "restartPolicy": "Never",
            "activeDeadlineSeconds": int(settings.lifetime_s),
            "terminationGracePeriodSeconds": 0,
            "automountServiceAccountToken": False,
            "enableServiceLinks": False,
            "hostname": "sandbox",
            "serviceAccountName": settings.service_account or "default",
            "imagePullSecrets": [{"name": secret} for secret in settings.image_pull_secrets],
            "nodeSelector": dict(settings.node_selector),
            "tolerations": [dict(toleration) for toleration in settings.tolerations],
            "containers": [_container(spec, image, command, settings)],
            "volumes": [{"name": "control", "emptyDir": {"medium": "Memory", "sizeLimit": "16Mi"}}],
        },
    }


def _container(spec: SandboxSpec, image: str, command: Sequence[str], settings: PodSettings) -> dict[str, Any]:
    return {
        "name": CONTAINER,
        "image": image,
        "imagePullPolicy": settings.image_pull_policy,
        "command": list(command),
        "workingDir": "/",
        "stdin": True,
        "stdinOnce": True,  # the end of the one connection is the end of stdin, and so of process 1
        "env": [{"name": name, "value": value} for name, value in {**ENV, **spec.env}.items()],
        "resources": _resources(spec, settings),
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"], "add": list(CAPABILITIES)},
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "volumeMounts": [{"name": "control", "mountPath": CONTROL}],
    }


def _resources(spec: SandboxSpec, settings: PodSettings) -> dict[str, dict[str, str]]:
    limits = spec.limits
    copied = 0 if spec.image else size_mb(spec.tree)
    copied += sum(size_mb(mount.host) for mount in spec.mounts)
    return {
        "requests": {
            "cpu": f"{min(settings.cpu_request, limits.cpus):g}",
            "memory": f"{min(settings.memory_request_mb, limits.memory_mb)}Mi",
        },
        "limits": {
            "cpu": f"{limits.cpus:g}",
            "memory": f"{limits.memory_mb}Mi",
            "ephemeral-storage": f"{limits.disk_mb + copied}Mi",
        },
    }


def size_mb(path: Path) -> int:
    """What a copy of a file or directory takes, rounded up, in MiB."""
    files = [path] if path.is_file() else path.rglob("*")
    return 1 + sum(file.lstat().st_size for file in files) // _MIB


def _container_states(pod: Any) -> list[Any]:
    return [status.state for status in pod.status.container_statuses or () if status.state is not None]


def hopeless(pod: Any) -> bool:
    """True for a pod that will never run."""
    waiting = [state.waiting.reason for state in _container_states(pod) if state.waiting is not None]
    return pod.status.phase in ("Failed", "Succeeded") or bool(_HOPELESS.intersection(waiting))


def why(pod: Any) -> str:
    """Why a pod does not run, or runs no more, in the cluster's words."""
    found = []
    for state in _container_states(pod):
        if state.terminated is not None:
            found += [f"exit status {state.terminated.exit_code}", state.terminated.reason, state.terminated.message]
        elif state.waiting is not None:
            found += [state.waiting.reason, state.waiting.message]
    for condition in pod.status.conditions or ():
        if condition.type == "PodScheduled" and condition.status == "False":
            found += [condition.reason, condition.message]
    found = [pod.status.reason, pod.status.message, *found]
    words = dict.fromkeys(" ".join(text.split()) for text in found if text)
    return ": ".join(words) or f"its pod is {pod.status.phase or 'unknown'}"
