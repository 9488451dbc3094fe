"""What all containers have in common, whatever engine started them."""

import asyncio
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest

from turnwise.errors import SandboxError
from turnwise.sandbox.kubernetes import KubernetesEngine, load_configuration
from turnwise.sandbox.pod import PodSettings
from turnwise.sandbox.remote import Container, Engine, Fleet, RemoteSandbox
from turnwise.types import SandboxSpec

_SLOW = SandboxSpec(None, image="slow")


@dataclass
class Slow:
    """An engine whose containers of the image "slow" fail to start, once they are let."""

    engine: Engine
    let: threading.Event = field(default_factory=threading.Event)
    fails_to_close: bool = False

    @property
    def binds(self) -> bool:
        return self.engine.binds

    @property
    def saves(self) -> bool:
        return self.engine.saves

    def start(self, key: str, spec: SandboxSpec, command: Sequence[str], image: str) -> Container:
        if spec.image == "slow":
            self.let.wait(60)
            raise SandboxError("too slow")
        return self.engine.start(key, spec, command, image)

    def save(self, container: Container) -> str:
        return self.engine.save(container)

    def close(self) -> None:
        self.engine.close()
        if self.fails_to_close:
            raise SandboxError("cannot close")


@pytest.fixture
def engine(cluster_config: str) -> Slow:
    return Slow(KubernetesEngine(load_configuration(cluster_config, ""), "base", PodSettings()))


async def test_many_slow_starts_hold_up_no_running_sandbox(engine: Slow, spec: SandboxSpec) -> None:
    fleet = Fleet("slow", lambda: engine)
    async with RemoteSandbox(fleet, spec) as sandbox:
        starts = [asyncio.create_task(RemoteSandbox(fleet, _SLOW).__aenter__()) for _ in range(200)]
        await asyncio.sleep(0.1)
        try:
            async with asyncio.timeout(20):
                assert (await sandbox.exec("echo here", 20)).output == "here\n"
                await sandbox.__aexit__(None, None, None)
        finally:
            engine.let.set()
            ended = await asyncio.gather(*starts, return_exceptions=True)
    assert {type(error) for error in ended} == {SandboxError}
    await fleet.close()


async def test_an_engine_that_fails_to_close_leaves_no_threads(engine: Slow, spec: SandboxSpec) -> None:
    engine.fails_to_close = True
    fleet = Fleet("slow", lambda: engine)
    async with RemoteSandbox(fleet, spec):
        pass
    with pytest.raises(SandboxError, match="cannot close"):
        await fleet.close()
    async with asyncio.timeout(10):
        while any(thread.name.startswith("sandbox") for thread in threading.enumerate()):  # noqa: ASYNC110
            await asyncio.sleep(0.01)
