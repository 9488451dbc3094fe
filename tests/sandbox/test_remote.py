"""What all containers have in common, whatever engine started them."""

import asyncio
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest

from turnwise.errors import SandboxError
from turnwise.sandbox.kubernetes import KubernetesEngine, load_configuration
from turnwise.sandbox.line import Stream
from turnwise.sandbox.pod import PodSettings
from turnwise.sandbox.remote import Container, Engine, Fleet, RemoteSandbox
from turnwise.types import SandboxSpec

_SLOW = SandboxSpec(None, image="slow")


@dataclass
class Counting:
    """A container's stream that counts its pings; where it is `odd`, they fail as nobody thought of."""

    stream: Stream
    odd: bool = False
    pings: int = 0

    def send(self, data: bytes) -> None:
        if b'"ping"' in data:
            self.pings += 1
            if self.odd:
                raise RuntimeError("how odd")
        self.stream.send(data)

    def receive(self) -> bytes:
        return self.stream.receive()

    def close(self) -> None:
        self.stream.close()


@dataclass
class Counted:
    """A container with such a stream."""

    container: Container
    stream: Counting

    def cause_of_death(self) -> str:
        return self.container.cause_of_death()

    def remove(self) -> None:
        self.container.remove()


@dataclass
class Strange:
    """An engine whose containers of the image "slow" fail to start, once they are let, and whose own end may fail."""

    engine: Engine
    let: threading.Event = field(default_factory=threading.Event)
    fails_to_close: bool = False
    streams: list[Counting] = field(default_factory=list)

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
        container = self.engine.start(key, spec, command, image)
        self.streams.append(Counting(container.stream))
        return Counted(container, self.streams[-1])

    def save(self, container: Container) -> str:
        return self.engine.save(container)

    def close(self) -> None:
        self.engine.close()
        if self.fails_to_close:
            raise SandboxError("cannot close")


@pytest.fixture
def engine(cluster_config: str) -> Strange:
    return Strange(KubernetesEngine(load_configuration(cluster_config, ""), "base", PodSettings()))


async def test_many_slow_starts_hold_up_no_running_sandbox(engine: Strange, spec: SandboxSpec) -> None:
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


async def test_an_engine_that_fails_to_close_leaves_no_threads(engine: Strange, spec: SandboxSpec) -> None:
    engine.fails_to_close = True
    fleet = Fleet("slow", lambda: engine)
    async with RemoteSandbox(fleet, spec):
        pass
    with pytest.raises(SandboxError, match="cannot close"):
        await fleet.close()
    async with asyncio.timeout(10):
        while any(thread.name.startswith("sandbox") for thread in threading.enumerate()):  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def test_a_ping_that_fails_ends_its_sandbox_and_no_other_pings(engine: Strange, spec: SandboxSpec) -> None:
    fleet = Fleet("odd", lambda: engine, ping_s=0.1)
    async with RemoteSandbox(fleet, spec) as odd, RemoteSandbox(fleet, spec) as sandbox:
        engine.streams[0].odd = True
        await asyncio.sleep(0.5)
        before = engine.streams[1].pings
        await asyncio.sleep(0.5)
        with pytest.raises(SandboxError, match="cannot be reached: how odd"):
            await odd.exec("true", 20)
        assert (await sandbox.exec("echo here", 20)).output == "here\n"
    assert engine.streams[1].pings > before
    await fleet.close()
