"""Every promise of the protocol is tested on every backend; what isolation promises, on those that isolate."""

import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from turnwise.sandbox import FakeBackend, LocalBackend, Sandbox, SandboxBackend
from turnwise.types import Limits, SandboxSpec

BACKENDS = (LocalBackend, FakeBackend)
ISOLATING = tuple(backend for backend in BACKENDS if backend.isolates)
LIMITS = Limits(memory_mb=256, processes=32, disk_mb=16, output_bytes=10_000, cpus=1.0)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A small repository with one commit."""
    root = tmp_path / "root"
    (root / "pkg" / "deep").mkdir(parents=True)
    (root / "README").write_text("read me\n")
    (root / "pkg" / "code.py").write_text("ONE = 1\n")
    (root / "pkg" / "deep" / "data.bin").write_bytes(bytes(range(256)))
    identity = ["-c", "user.name=maker", "-c", "user.email=maker@example.org"]
    for arguments in (["init", "-q"], ["add", "-A"], [*identity, "commit", "-q", "-m", "base"]):
        subprocess.run(["git", "-C", str(root), *arguments], check=True)
    return root


@pytest.fixture
def spec(root: Path) -> SandboxSpec:
    return SandboxSpec(root, env={"GREETING": "hello there"}, limits=LIMITS)


@pytest_asyncio.fixture(params=BACKENDS, ids=lambda backend: backend.name)
async def backend(request: pytest.FixtureRequest) -> AsyncIterator[SandboxBackend]:
    """Every backend in turn."""
    backend = request.param()
    yield backend
    await backend.close()


@pytest_asyncio.fixture(params=ISOLATING, ids=lambda backend: backend.name)
async def isolating(request: pytest.FixtureRequest) -> AsyncIterator[SandboxBackend]:
    """Every backend that isolates."""
    backend = request.param()
    yield backend
    await backend.close()


@pytest_asyncio.fixture
async def sandbox(backend: SandboxBackend, spec: SandboxSpec) -> AsyncIterator[Sandbox]:
    async with backend.create(spec) as sandbox:
        yield sandbox


@pytest_asyncio.fixture
async def isolated(isolating: SandboxBackend, spec: SandboxSpec) -> AsyncIterator[Sandbox]:
    async with isolating.create(spec) as sandbox:
        yield sandbox
