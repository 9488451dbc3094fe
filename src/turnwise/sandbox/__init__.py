"""Sandboxes: where untrusted commands run. `LocalBackend`, `DockerBackend` and `KubernetesBackend` isolate for real;
`FakeBackend` pretends, for tests."""

from turnwise.sandbox.docker import DockerBackend
from turnwise.sandbox.fake import FakeBackend, FakeCommand, FakeMachine, FakeSandbox
from turnwise.sandbox.kubernetes import KubernetesBackend
from turnwise.sandbox.local import LocalBackend, LocalSandbox
from turnwise.sandbox.oci import UnpackedImage, unpack_image
from turnwise.sandbox.pod import PodSettings
from turnwise.sandbox.protocol import Sandbox, SandboxBackend, SnapshotRef

__all__ = [
    "DockerBackend",
    "FakeBackend",
    "FakeCommand",
    "FakeMachine",
    "FakeSandbox",
    "KubernetesBackend",
    "LocalBackend",
    "LocalSandbox",
    "PodSettings",
    "Sandbox",
    "SandboxBackend",
    "SnapshotRef",
    "UnpackedImage",
    "unpack_image",
]
