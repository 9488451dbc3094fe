"""The endpoint policy against a real HTTP server: what it sends, what it makes of answers, and of failures."""

import asyncio
import sys
import threading
from dataclasses import replace

import pytest

from turnwise.agent import Message, TranscriptRenderer
from turnwise.errors import InputError, PolicyError
from turnwise.policy import ChatPolicy, Endpoint
from turnwise.policy.endpoint import LARGEST_ANSWER_BYTES
from turnwise.policy.waits import LONGEST_ASKED_S, retry_after_s
from turnwise.types import Sampling
from turnwise.usage import Usage

from ..endpoint import Answer, completion, error, in_turn, serving
from .clock import ManualClock

RENDERER = TranscriptRenderer()
OPENING = RENDERER.opening([Message("system", "Rules: naïve 日本語."), Message("user", "Fix it.\n\n    x = 1\n")])
SAMPLING = Sampling(max_tokens=50, stop_token_ids=RENDERER.stop_token_ids)
GOOD = completion("Done.", prompt=120, cached=80, sampled=7)


class Asked:
    """A policy for one server, and the failures that it told of."""

    def __init__(self, server, *, key=None, timeout_s=5.0, **options):
        self.failures = []
        self.on_failure = lambda: None
        self.policy = ChatPolicy(
            Endpoint(server.url, "org/model", key, "SOME_KEY" if key else None, timeout_s),
            **{"first_wait_s": 0.01, "on_failure": self._failed, **options},
        )

    def _failed(self, *told):
        self.failures.append(told)
        self.on_failure()

    async def __aenter__(self):
        return self

    async def __aexit__(self, *_):
        await self.policy.close()

    async def sample(self, token_ids=OPENING, sampling=SAMPLING, session="episode"):
        return await self.policy.sample(tuple(token_ids), sampling, session)

    @property
    def causes(self):
        return [cause for cause, _, _ in self.failures]


async def test_messages_go_out_as_they_were_and_the_reply_comes_back_with_its_count():
    with serving(in_turn(GOOD)) as server:
        async with Asked(server, key="secret") as asked:
            sample = await asked.sample()
            history = [*OPENING, *sample.token_ids, *RENDERER.observation("output\n")]
            await asked.sample(history)
    first, second = server.asked
    assert first.path == "/v1/chat/completions"
    assert first.headers["authorization"] == "Bearer secret"
    assert first.body == {
        "model": "org/model",
        "messages": [
            {"role": "system", "content": "Rules: naïve 日本語."},
            {"role": "user", "content": "Fix it.\n\n    x = 1\n"},
        ],
    }, "nothing but the model and the messages: the endpoint decodes by its own defaults"
    assert second.body["messages"][2:] == [
        {"role": "assistant", "content": "Done."},
        {"role": "user", "content": "output\n"},
    ]
    assert RENDERER.decode(sample.token_ids) == "Done."
    assert sample.stopped
    assert sample.usage == Usage(120, 80, 7)
    assert set(sample.logprobs) == {0.0}
    assert len(sample.logprobs) == len(sample.token_ids)


async def test_only_what_the_recipe_names_is_added():
    with serving(in_turn(GOOD)) as server:
        async with Asked(server, request={"temperature": 0.6, "reasoning_effort": "high"}) as asked:
            await asked.sample()
            with pytest.raises(InputError, match=r"top_k=5 belongs in policy\.chat\.request"):
                await asked.sample(sampling=replace(SAMPLING, top_k=5))
    assert {key: server.asked[0].body[key] for key in ("temperature", "reasoning_effort")} == {
        "temperature": 0.6,
        "reasoning_effort": "high",
    }
    assert len(server.asked) == 1


async def test_a_reply_cut_short_is_ended_by_the_next_observation():
    with serving(in_turn(completion("Half of", finish="length"), GOOD)) as server:
        async with Asked(server) as asked:
            sample = await asked.sample()
            assert not sample.stopped
            await asked.sample([*OPENING, *sample.token_ids, *RENDERER.observation("seen", stopped=False)])
    assert [message["content"] for message in server.asked[1].body["messages"][2:]] == ["Half of", "seen"]


@pytest.mark.parametrize(
    ("answer", "text", "usage"),
    [
        (completion(None), "", Usage(100, 0, 10)),
        (completion([{"type": "text", "text": "He"}, {"type": "text", "text": "llo"}]), "Hello", Usage(100, 0, 10)),
        (completion([]), "", Usage(100, 0, 10)),
        (completion("x", usage=None), "x", None),
        (completion("x", usage={"prompt_tokens": -500, "completion_tokens": -10}), "x", None),
        (completion("x", usage={"prompt_tokens": None}), "x", None),
        (
            completion("x", usage={"prompt_tokens": 9, "completion_tokens": 1, "prompt_cache_hit_tokens": 4}),
            "x",
            Usage(9, 4, 1),
        ),
    ],
)
async def test_odd_but_whole_replies(answer, text, usage):
    with serving(in_turn(answer)) as server:
        async with Asked(server) as asked:
            sample = await asked.sample()
    assert (RENDERER.decode(sample.token_ids), sample.usage) == (text, usage)


GARBAGE = [
    Answer("<html>Bad gateway</html>"),
    Answer('{"choices": [{"mess'),
    Answer({"choices": []}),
    Answer({"choices": [{"message": {"content": 5}}]}),
    Answer([]),
]


@pytest.mark.parametrize("garbage", GARBAGE, ids=lambda answer: str(answer.body)[:20])
async def test_garbage_is_tried_again_and_counted(garbage):
    with serving(in_turn(garbage, GOOD)) as server:
        async with Asked(server) as asked:
            assert (await asked.sample(session="base/evaluate/0/t/0")).stopped
    assert asked.causes == ["endpoint_garbage"]
    assert asked.failures[0][1] == "base/evaluate/0/t/0"
    assert f"{server.url} (model org/model)" in asked.failures[0][2]


@pytest.mark.parametrize(
    ("garbage", "fault"),
    [
        (Answer({"id": "x"}), "choices: Field required"),
        (
            completion([{"type": "image_url"}]),
            "choices.0.message.content: Value error, a part of type 'image_url' is no text",
        ),
        (
            completion([{"type": "text", "text": 5}]),
            "choices.0.message.content: Value error, a part of text without text",
        ),
        (Answer("<html>"), "Invalid JSON"),
    ],
)
async def test_garbage_is_told_by_its_fault(garbage, fault):
    with serving(in_turn(garbage, GOOD)) as server:
        async with Asked(server) as asked:
            await asked.sample()
    assert f"not a chat completion ({fault}" in asked.failures[0][2]


async def test_every_cause_is_counted_under_its_own_word():
    script = in_turn(
        error(500, "boom"), error(429, "slow down", retry_after="0.01"), Answer("?"), replace(GOOD, delay_s=2.5), GOOD
    )
    with serving(script) as server:
        async with Asked(server, timeout_s=1.5) as asked:
            await asked.sample()
    assert asked.causes == [
        "endpoint_server_error",
        "endpoint_rate_limited",
        "endpoint_garbage",
        "endpoint_timeout",
    ]


async def test_an_answer_that_drips_in_is_timed_out_as_a_whole():
    with serving(in_turn(replace(GOOD, drip_s=0.05), GOOD)) as server:
        async with Asked(server, timeout_s=0.5) as asked:
            await asked.sample()
    assert asked.causes == ["endpoint_timeout"]


async def test_an_answer_without_an_end_is_not_kept():
    with serving(in_turn(Answer(" " * (LARGEST_ANSWER_BYTES + 1)), GOOD)) as server:
        async with Asked(server) as asked:
            await asked.sample()
    assert asked.causes == ["endpoint_garbage"]
    assert "more than 16 MB" in asked.failures[0][2]


async def test_an_answer_that_breaks_off_is_tried_again():
    with serving(in_turn(replace(GOOD, whole=False), GOOD)) as server:
        async with Asked(server) as asked:
            await asked.sample()
    assert asked.causes == ["endpoint_unreachable"]


async def test_a_server_that_goes_on_failing_is_a_policy_error_with_its_last_words():
    with serving(in_turn(error(503, "overloaded, sorry"))) as server:
        async with Asked(server, attempts=3) as asked:
            with pytest.raises(PolicyError, match=r"overloaded, sorry.*endpoint_server_error, 3 attempts"):
                await asked.sample()
    assert len(server.asked) == 3
    assert asked.causes == ["endpoint_server_error"] * 3


async def test_a_server_that_is_not_there_is_a_policy_error():
    with serving(in_turn(GOOD)) as server:
        pass
    async with Asked(server, attempts=2) as asked:
        with pytest.raises(PolicyError, match="endpoint_unreachable, 2 attempts"):
            await asked.sample()


async def test_retry_after_is_waited_for_by_every_session():
    clock = ManualClock()
    with serving(in_turn(error(429, "slow down", retry_after="40"), GOOD)) as server:
        async with Asked(server, clock=clock) as asked:
            first = asyncio.create_task(asked.sample(session="one"))
            await clock.wait_for_sleepers(1)
            second = asyncio.create_task(asked.sample(session="two"))
            await clock.wait_for_sleepers(2)
            assert len(server.asked) == 1
            clock.move(50)
            samples = await asyncio.gather(first, second)
    assert all(40 <= delay_s <= 50 for delay_s in clock.asked)
    assert len(server.asked) == 3
    assert [sample.sample_s for sample in samples] == [0.0, 0.0], "the wait is not the model's time"


async def test_sessions_that_were_held_back_together_do_not_come_back_together():
    clock = ManualClock()
    busy = [error(429, "slow down", retry_after="40")] * 10
    with serving(in_turn(*busy, GOOD)) as server:
        async with Asked(server, timeout_s=30, clock=clock) as asked:
            sessions = [asyncio.create_task(asked.sample(session=str(number))) for number in range(10)]
            await clock.wait_for_sleepers(10)
            clock.move(50)
            await asyncio.gather(*sessions)
    assert len(clock.asked) == 10
    assert min(clock.asked) >= 40
    assert max(clock.asked) - min(clock.asked) > 0.5, "a quarter of the wait is theirs to come back in"


async def test_a_session_that_waits_for_its_turn_is_held_back_too():
    clock = ManualClock()
    with serving(in_turn(error(429, "slow down", retry_after="40"), GOOD)) as server:
        async with Asked(server, requests_per_minute=6, clock=clock) as asked:
            sessions = [asyncio.create_task(asked.sample(session=str(number))) for number in range(3)]
            await clock.wait_for_sleepers(3)  # two for their turn, in 10 and 20 s, and the refused one
            clock.move(25)
            await clock.wait_for_sleepers(3)
            assert len(server.asked) == 1
            assert clock.asked[:2] == [10.0, 20.0]
            assert all(15 <= delay_s <= 25 for delay_s in clock.asked[3:]), "what is left of the 40 s, and a quarter"
            clock.move(60)
            await clock.wait_for_sleepers(2)
            clock.move(20)
            await asyncio.gather(*sessions)
    assert clock.asked[5:] == [10.0, 20.0]
    assert len(server.asked) == 4


async def test_a_retry_after_beyond_reason_is_not_waited_for():
    with serving(in_turn(error(429, "come back tomorrow", retry_after=str(LONGEST_ASKED_S + 1)))) as server:
        async with Asked(server) as asked:
            with pytest.raises(PolicyError, match="come back tomorrow"):
                await asked.sample()
    assert len(server.asked) == 1


@pytest.mark.parametrize(
    "header", ["Wed, 31 Feb 99999 25:61:61 GMT", "Wed, 99 Foo 9999 99:99:99 GMT", "nan", "inf", "soon", ""]
)
async def test_a_retry_after_that_is_no_time_is_as_good_as_none(header):
    assert retry_after_s(header) is None
    with serving(in_turn(error(429, "slow down", retry_after=header), GOOD)) as server:
        async with Asked(server) as asked:
            await asked.sample()
    assert asked.causes == ["endpoint_rate_limited"]


async def test_requests_run_at_once():
    together = threading.Barrier(5)

    def answer(request):
        together.wait(timeout=30)  # nobody is answered until all five have asked
        return GOOD

    with serving(answer) as server:
        async with Asked(server, timeout_s=60) as asked:
            await asyncio.gather(*(asked.sample(session=str(number)) for number in range(5)))
    assert asked.failures == []


async def test_requests_are_paced():
    clock = ManualClock()
    with serving(in_turn(GOOD)) as server:
        async with Asked(server, requests_per_minute=6, clock=clock) as asked:
            sessions = [asyncio.create_task(asked.sample(session=str(number))) for number in range(5)]
            await clock.wait_for_sleepers(4)
            clock.move(40)
            await asyncio.gather(*sessions)
    assert clock.asked == [10.0, 20.0, 30.0, 40.0], "each is begun 10 s after the one before"


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (error(401, "bad key"), ["401", "bad key", "SOME_KEY"]),
        (error(403, "no access"), ["403", "SOME_KEY"]),
        (error(404, "no such model"), ["404", "org/model", "--model", "--endpoint"]),
        (error(402, "Insufficient Balance"), ["no credit left"]),
        (error(429, "quota", code="insufficient_quota"), ["no credit left"]),
    ],
)
async def test_what_no_retry_can_mend_is_an_input_error_at_once(answer, words):
    with serving(in_turn(answer)) as server:
        async with Asked(server, key="secret") as asked:
            with pytest.raises(InputError) as refused:
                await asked.sample()
    assert len(server.asked) == 1
    assert asked.failures == []
    for word in (server.url, *words):
        assert word in str(refused.value)
    assert "secret" not in str(refused.value)


async def test_a_missing_key_says_how_to_give_one():
    with serving(in_turn(error(401, "no key"))) as server:
        async with Asked(server) as asked:
            with pytest.raises(InputError, match=r"no API key was given.*--api-key-env"):
                await asked.sample()


async def test_another_bad_request_is_the_requests_own_failure_and_is_not_repeated():
    with serving(in_turn(error(400, "something is wrong with this one"))) as server:
        async with Asked(server) as asked:
            with pytest.raises(PolicyError, match="something is wrong"):
                await asked.sample()
    assert len(server.asked) == 1


def test_without_the_package_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "openai", None)
    with pytest.raises(InputError, match=r"turnwise\[chat\]"):
        Endpoint("http://localhost/v1", "m", None, None, 1.0)


async def test_weights_cannot_be_set():
    with serving(in_turn(GOOD)) as server:
        async with Asked(server) as asked:
            with pytest.raises(InputError, match="weights cannot be set"):
                await asked.policy.update_weights({}, 1)


async def test_a_slow_answer_can_be_cancelled():
    with serving(in_turn(replace(GOOD, delay_s=1.0))) as server:
        async with Asked(server) as asked:
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.1):
                    await asked.sample()
    assert asked.failures == []
