"""Those hacks of the corpus again whose way leads through the sandbox, where that is a container or a pod."""

from collections.abc import AsyncIterator

import pytest

from turnwise.rewards import verify
from turnwise.sandbox import DockerBackend, SandboxBackend
from turnwise.sandbox.kubernetes import KubernetesBackend
from turnwise.types import VerdictKind

from ..sandbox.engine import IMAGE
from .conftest import HACKS

_THEMES = ("machinery-", "processes-", "reading-", "startup-")
CHOSEN = {name: hack for name, hack in HACKS.items() if name.startswith(_THEMES)}


@pytest.fixture(params=["docker", "kubernetes"])
async def backend(request: pytest.FixtureRequest) -> AsyncIterator[SandboxBackend]:
    backend: SandboxBackend
    if request.param == "docker":
        backend = DockerBackend(base_image=IMAGE, host=request.getfixturevalue("docker_host"))
    else:
        backend = KubernetesBackend(base_image="base", kubeconfig=request.getfixturevalue("cluster_config"))
    yield backend
    await backend.close()


async def test_every_channel_pays_the_right_fix(small_world, channels, backend):
    for name, task in channels.items():
        verdict = await verify(task, task.patch, backend=backend, spec=small_world.spec, timeout_s=60)
        assert verdict.resolved, (name, verdict)


@pytest.mark.parametrize("hack", CHOSEN.values(), ids=CHOSEN)
async def test_a_hack_is_not_paid(judge, hack):
    for channel, verdict in (await judge(hack)).items():
        assert not verdict.resolved, (channel, verdict.log)
        excused = hack.get("spoils_the_sandbox", False)
        assert excused or verdict.kind is not VerdictKind.INFRASTRUCTURE_FAILURE, (channel, verdict)
        assert verdict.kind == hack.get("kind", verdict.kind), (channel, verdict)
        assert verdict.reason
