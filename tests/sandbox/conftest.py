"""Every promise of the protocol is tested on every backend; what isolation promises, on those that isolate."""

import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from turnwise.sandbox import FakeBackend, LocalBackend, Sandbox, SandboxBackend
from turnwise.sandbox.docker import DockerBackend
from turnwise.sandbox.kubernetes import KubernetesBackend
from turnwise.types import Limits, SandboxSpec

from .engine import IMAGE

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


def make_backend(request: pytest.FixtureRequest) -> SandboxBackend:
    """The backend that the fixture's parameter names."""
    if request.param == "docker":
        return DockerBackend(base_image=IMAGE, host=request.getfixturevalue("docker_host"), network="host")
    if request.param == "kubernetes":
        return KubernetesBackend(base_image="base", kubeconfig=request.getfixturevalue("cluster_config"))
    return {"local": LocalBackend, "fake": FakeBackend}[request.param]()


@pytest_asyncio.fixture(params=["local", "fake", "docker", "kubernetes"])
async def backend(request: pytest.FixtureRequest) -> AsyncIterator[SandboxBackend]:
    """Every backend in turn."""
    backend = make_backend(request)
    yield backend
    await backend.close()


@pytest_asyncio.fixture(params=["local", "docker"])
async def isolating(request: pytest.FixtureRequest) -> AsyncIterator[SandboxBackend]:
    """Every backend that isolates."""
    backend = make_backend(request)
    yield backend
    await backend.close()


@pytest_asyncio.fixture(params=["local"])
async def local(request: pytest.FixtureRequest) -> AsyncIterator[SandboxBackend]:
    """The backend that shows the host's system, and holds a sandbox to its disk on every machine."""
    backend = make_backend(request)
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


@pytest_asyncio.fixture
async def on_host(local: SandboxBackend, spec: SandboxSpec) -> AsyncIterator[Sandbox]:
    async with local.create(spec) as sandbox:
        yield sandbox
