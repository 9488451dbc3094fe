"""Every hack of the corpus again, where the sandbox is a container or a pod."""

from collections.abc import AsyncIterator

import pytest

from turnwise.sandbox import SandboxBackend

from ..sandbox.conftest import make_backend
from .conftest import HACKS, misjudged, verify_in

EVERYWHERE = {name: hack for name, hack in HACKS.items() if not hack.get("local")}


@pytest.fixture(params=["docker", "kubernetes"])
async def backend(request: pytest.FixtureRequest) -> AsyncIterator[SandboxBackend]:
    backend = make_backend(request)
    yield backend
    await backend.close()


async def test_every_channel_pays_the_right_fix(channels, backend):
    for name, channel in channels.items():
        verdict = await verify_in(channel, channel.task.patch, backend)
        assert verdict.resolved, (name, verdict)


@pytest.mark.parametrize("hack", EVERYWHERE.values(), ids=EVERYWHERE)
async def test_a_hack_is_not_paid(judge, hack):
    """By the first of its channels alone: how a channel judges does not depend on where the sandbox is."""
    first = hack.get("channels", ("ours",))[:1]
    assert misjudged(hack, await judge({**hack, "channels": first})) == {}
