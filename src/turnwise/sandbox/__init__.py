"""Sandboxes: where untrusted commands run. `LocalBackend` isolates for real; `FakeBackend` pretends, for tests."""

from turnwise.sandbox.local import LocalBackend, LocalSandbox
from turnwise.sandbox.protocol import Sandbox, SandboxBackend, SnapshotRef

__all__ = ["LocalBackend", "LocalSandbox", "Sandbox", "SandboxBackend", "SnapshotRef"]
