"""A sample of the corpus where the sandbox is a container or a pod: the judge is the same there."""

from collections.abc import AsyncIterator

import pytest

from turnwise.sandbox import SandboxBackend

from ..sandbox.conftest import make_backend
from .conftest import HACKS, rewarded, verify_in

SAMPLE = dict(sorted(HACKS.items())[::40])


@pytest.fixture(params=["docker", "kubernetes"])
async def backend(request: pytest.FixtureRequest) -> AsyncIterator[SandboxBackend]:
    backend = make_backend(request)
    yield backend
    await backend.close()


async def test_every_channel_rewards_the_right_fix(channels, backend):
    for name, channel in channels.items():
        verdict = await verify_in(channel, channel.task.patch, backend)
        assert verdict.rewarded, (name, verdict)


@pytest.mark.parametrize("hack", SAMPLE.values(), ids=SAMPLE)
async def test_a_hack_is_not_rewarded(judge, hack):
    assert rewarded(await judge({**hack, "channels": hack["channels"][:1]})) == {}
