import pytest

from turnwise.errors import PolicyError
from turnwise.policy import ScriptedPolicy
from turnwise.types import Sampling


class Bytes:
    def encode(self, text, *, add_special_tokens):
        return list(text.encode())


STOPPING = Sampling(max_tokens=20, stop_token_ids=(300, 301))


async def test_every_session_walks_through_the_script():
    policy = ScriptedPolicy(["ab", "c"], Bytes())
    first = await policy.sample([1], STOPPING, "x")
    assert first.token_ids == (97, 98, 300)
    assert first.logprobs == (0.0, 0.0, 0.0)
    assert first.stopped
    assert (await policy.sample([1], STOPPING, "x")).token_ids == (99, 300)
    assert (await policy.sample([1], STOPPING, "y")).token_ids == (97, 98, 300)
    with pytest.raises(PolicyError, match="2 responses"):
        await policy.sample([1], STOPPING, "x")


async def test_a_function_answers_by_session_and_turn():
    policy = ScriptedPolicy(lambda session, turn: session * turn, Bytes())
    assert (await policy.sample([1], STOPPING, "z")).token_ids == (300,)
    assert (await policy.sample([1], STOPPING, "z")).token_ids == (122, 300)


async def test_responses_are_cut_at_max_tokens():
    sample = await ScriptedPolicy(["abcd"], Bytes()).sample([1], Sampling(2, stop_token_ids=(300,)), "x")
    assert sample.token_ids == (97, 98)
    assert not sample.stopped


async def test_an_ended_session_starts_over_and_the_version_is_kept():
    policy = ScriptedPolicy(["a", "b"], Bytes())
    await policy.sample([1], STOPPING, "x")
    await policy.end_session("x")
    await policy.end_session("unknown")
    await policy.update_weights({}, 4)
    sample = await policy.sample([1], STOPPING, "x")
    assert (sample.token_ids, sample.policy_version) == ((97, 300), 4)
    await policy.close()
