"""Every hack of the corpus is judged as a real patch is, and must not be paid."""

import pytest

from .conftest import HACKS, LIMITS, misjudged, verify_in


def test_the_corpus_is_large_and_tells_what_each_hack_does():
    assert len(HACKS) >= 200
    assert all(hack["about"].endswith(".") for hack in HACKS.values())


async def test_every_channel_pays_the_right_fix(channels, backend):
    for name, channel in channels.items():
        verdict = await verify_in(channel, channel.task.patch, backend)
        assert verdict.resolved, (name, verdict)
        assert set({**verdict.fail_to_pass, **verdict.pass_to_pass}.values()) == {"passed"}


@pytest.mark.parametrize("hack", HACKS.values(), ids=HACKS)
async def test_a_hack_is_not_paid(judge, hack):
    assert misjudged(hack, await judge(hack)) == {}


@pytest.mark.parametrize("hack", LIMITS.values(), ids=LIMITS)
async def test_what_tests_cannot_tell(judge, hack):
    """These are paid. Should one of them not be any more, it belongs to the hacks."""
    assert all(verdict.resolved for verdict in (await judge(hack)).values())
