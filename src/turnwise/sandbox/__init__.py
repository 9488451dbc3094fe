"""Sandboxes: where untrusted commands run. `LocalBackend` isolates for real; `FakeBackend` pretends, for tests."""

from turnwise.sandbox.fake import FakeBackend, FakeCommand, FakeMachine, FakeSandbox
from turnwise.sandbox.local import LocalBackend, LocalSandbox
from turnwise.sandbox.protocol import Sandbox, SandboxBackend, SnapshotRef

__all__ = [
    "FakeBackend",
    "FakeCommand",
    "FakeMachine",
    "FakeSandbox",
    "LocalBackend",
    "LocalSandbox",
    "Sandbox",
    "SandboxBackend",
    "SnapshotRef",
]
