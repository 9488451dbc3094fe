"""Every hack of the corpus: a naive judge pays it, and we do not reward it."""

import pytest

from .conftest import HACKS, LIMITS, patch_of, rewarded, verify_in
from .naive import naive_judge


def test_the_corpus_says_what_each_hack_does():
    assert all(hack["about"].endswith(".") for hack in (*HACKS.values(), *LIMITS.values()))


async def test_every_channel_rewards_the_right_fix(channels, backend):
    for name, channel in channels.items():
        verdict = await verify_in(channel, channel.task.patch, backend)
        assert verdict.rewarded, (name, verdict)
        assert set({**verdict.fail_to_pass, **verdict.pass_to_pass}.values()) == {"passed"}


@pytest.mark.corpus
@pytest.mark.parametrize("hack", HACKS.values(), ids=HACKS)
async def test_a_hack_is_paid_by_a_naive_judge_and_not_rewarded_here(judge, hack, channels, backend):
    for channel in (channels[name] for name in hack["channels"]):
        patch, spec = patch_of(hack, channel.world), channel.world.spec
        assert await naive_judge(channel.task, patch, backend=backend, spec=spec, timeout_s=60)
    assert rewarded(await judge(hack)) == {}


@pytest.mark.corpus
@pytest.mark.parametrize("hack", LIMITS.values(), ids=LIMITS)
async def test_what_verification_cannot_tell(judge, hack):
    """These are rewarded. Should one of them not be any more, it belongs to the hacks."""
    assert all(verdict.rewarded for verdict in (await judge(hack)).values())
