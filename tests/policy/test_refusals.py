"""What error answers and odd replies lead to, over real HTTP, in the words of common services."""

import asyncio
import threading

import pytest

from turnwise.agent import Message, TranscriptRenderer
from turnwise.errors import ContentRefused, ContextExceeded, InputError, PolicyError
from turnwise.policy import ChatPolicy, Endpoint
from turnwise.policy.chat import NO_TEXT
from turnwise.policy.completion import read_usage
from turnwise.policy.refusals import classify
from turnwise.types import Sampling
from turnwise.usage import Prices, Usage

from ..endpoint import Answer, completion, error, in_turn, serving
from .clock import ManualClock
from .refusals import ACCOUNT, DECLINED, LIMIT_TOO_LARGE, NEAR_MISSES, NO_SYSTEM_ROLE, SETTINGS, TOO_LONG

RENDERER = TranscriptRenderer()
OPENING = RENDERER.opening([Message("system", "Rules."), Message("user", "Fix it.")])
LATER = [*OPENING, *b"ls", *RENDERER.stop_token_ids, *RENDERER.observation("a.py")]
SAMPLING = Sampling(max_tokens=50, stop_token_ids=RENDERER.stop_token_ids)
LIMIT = {"max_tokens": 2045}
GOOD = completion("Done.")


async def ask(*answers, history=OPENING, request=None, repeats=1, **options):
    """The texts of the replies, the bodies that were sent, and the causes of failures."""
    causes = []
    with serving(in_turn(*answers)) as server:
        policy = ChatPolicy(
            Endpoint(server.url, "m", None, None, 5.0),
            request=request,
            **{"first_wait_s": 0.01, "on_failure": lambda cause, *_: causes.append(cause), **options},
        )
        try:
            drawn = [await policy.sample(tuple(history), SAMPLING, "s") for _ in range(repeats)]
        except Exception as failure:
            failure.asked = len(server.asked)
            raise
        finally:
            await policy.close()
    return [RENDERER.decode(each.token_ids) for each in drawn], [each.body for each in server.asked], causes


def named(answers):
    return pytest.mark.parametrize("answer", answers.values(), ids=answers.keys())


@named(TOO_LONG)
@pytest.mark.parametrize("request_", [{}, LIMIT], ids=["plain", "limited"])
async def test_a_prompt_too_long_is_the_policys_doing(answer, request_):
    with pytest.raises(ContextExceeded) as raised:
        await ask(answer, request=request_, history=LATER)
    assert raised.value.asked == 1


@named(LIMIT_TOO_LARGE)
async def test_a_limit_that_leaves_the_opening_no_room_is_the_users_setting(answer):
    with pytest.raises(InputError, match=r"policy\.chat\.request\.max_tokens: 2040 fits") as raised:
        await ask(error(400, answer), request=LIMIT)
    assert raised.value.asked == 1


@named(LIMIT_TOO_LARGE)
async def test_a_limit_that_a_grown_conversation_leaves_no_room_is_lowered_for_it(answer):
    _, sent, causes = await ask(error(400, answer), GOOD, request=LIMIT, history=LATER)
    assert [body["max_tokens"] for body in sent] == [2045, 2040]
    assert causes == []


async def test_a_conversation_that_leaves_no_useful_room_is_too_long():
    with pytest.raises(ContextExceeded):
        await ask(error(400, LIMIT_TOO_LARGE["tgi"].replace("8 `i", "1900 `i")), request=LIMIT, history=LATER)


@named(SETTINGS)
async def test_a_setting_that_the_service_refuses_is_named(answer):
    with pytest.raises(InputError, match=r"change or remove policy\.chat\.request\.max_tokens") as raised:
        await ask(error(400, answer), request=LIMIT)
    assert raised.value.asked == 1


@named(ACCOUNT)
async def test_what_only_the_account_can_mend_is_not_tried_again(answer):
    with pytest.raises(InputError) as raised:
        await ask(answer)
    assert raised.value.asked == 1


FILTERED = {reason: completion("I", finish=reason) for reason in ("content_filter", "refusal", "SAFETY")}
REFUSED = completion(None)
REFUSED.body["choices"][0]["message"]["refusal"] = "I can't help with that."


@named({**DECLINED, **FILTERED, "message": REFUSED})
async def test_an_answer_that_is_declined_is_the_policys_doing(answer):
    with pytest.raises(ContentRefused) as raised:
        await ask(answer)
    assert raised.value.asked == 1


@named(NO_SYSTEM_ROLE)
async def test_where_the_system_role_is_refused_its_prompt_goes_with_the_first_user_message(answer):
    _, sent, causes = await ask(answer, GOOD, repeats=2)
    plain = [{"role": "user", "content": "Rules.\n\nFix it."}]
    assert [body["messages"] for body in sent][1:] == [plain, plain], "it is refused once"
    assert causes == []


async def test_requests_under_way_when_the_system_role_is_refused_fall_back_once_each():
    together = threading.Barrier(3)

    def script(request):
        if request.body["messages"][0]["role"] != "system":
            return GOOD
        together.wait(timeout=30)  # nobody is refused until all three have asked
        return NO_SYSTEM_ROLE["vllm-gemma"]

    with serving(script) as server:
        policy = ChatPolicy(Endpoint(server.url, "m", None, None, 60.0), attempts=1)
        await asyncio.gather(*(policy.sample(tuple(OPENING), SAMPLING, str(number)) for number in range(3)))
        await policy.sample(tuple(OPENING), SAMPLING, "later")
        await policy.close()
    first_roles = [request.body["messages"][0]["role"] for request in server.asked]
    assert first_roles == ["system"] * 3 + ["user"] * 4


@pytest.mark.parametrize(("status", "text", "codes", "settings", "kind"), NEAR_MISSES.values(), ids=NEAR_MISSES.keys())
def test_a_wording_that_only_looks_alike_is_another_kind(status, text, codes, settings, kind):
    assert classify(status, text, codes, settings) == kind


async def test_a_system_role_refused_without_one_is_the_requests_failure():
    with pytest.raises(PolicyError):
        await ask(NO_SYSTEM_ROLE["vllm-gemma"], attempts=1)


def with_error(inner):
    answer = completion("half of")
    answer.body["choices"][0].update(error=inner)
    return answer


FAILED = {
    **{reason: completion("half of", finish=reason) for reason in ("abort", "error", "ERROR", "load", "new_reason")},
    "choice": with_error({"code": 502, "message": "Upstream"}),
    "top": Answer({"error": {"message": "upstream failed"}}),
    "top-beside-choices": completion("half of", error={"message": "overloaded"}),
    "text": Answer({"error": "overloaded"}),
}


@named(FAILED)
async def test_a_failed_answer_of_status_200_is_tried_again(answer):
    said, _, causes = await ask(answer, GOOD)
    assert (said, causes) == (["Done."], ["endpoint_server_error"])


async def test_a_rate_limit_of_status_200_is_one():
    assert (await ask(Answer({"error": {"code": 429, "message": "slow"}}), GOOD))[2] == ["endpoint_rate_limited"]


@pytest.mark.parametrize("text", ["", " \n\t"])
async def test_no_message_is_sent_empty(text):
    history = [*OPENING, *text.encode(), *RENDERER.stop_token_ids, *RENDERER.observation(text)]
    _, (body,), _ = await ask(GOOD, history=history)
    assert [each["content"] for each in body["messages"][2:]] == [NO_TEXT, NO_TEXT]


async def test_reasoning_parts_of_a_reply_are_left_out():
    parts = [
        {"type": "thinking", "thinking": "Hm"},
        "A",
        {"type": "text", "text": "B"},
        {"type": "output_text", "text": "C"},
    ]
    assert (await ask(completion(parts)))[0] == ["ABC"]


async def delays(answer, **options):
    """What the policy waits for between an answer and the next request."""
    clock = ManualClock(jumps=True)
    await ask(answer, GOOD, clock=clock, **options)
    return clock.asked


@pytest.mark.parametrize("header", ["0", "-5", "Thu, 01 Jan 1970 00:01:00 GMT", "0.0", "soon"])
async def test_a_wait_asked_for_never_shortens_our_own(header):
    (waited_s,) = await delays(error(503, "busy", retry_after=header), first_wait_s=4.0)
    assert 3.0 <= waited_s <= 5.0, "a quarter more or less than first_wait_s"


ASKED = [
    ({"retry_after_ms": "30000", "retry_after": "0"}, 30.0),
    ({"x_ratelimit_reset": "30"}, 30.0),
    ({"x_ratelimit_reset_requests": "1m30.5s"}, 90.5),
    ({"x_ratelimit_reset_requests": "120ms", "x_ratelimit_reset_tokens": "6m0s"}, 360.0),
    ({"x_ratelimit_reset_requests": "6m0s", "retry_after": "20"}, 20.0),
]


@pytest.mark.parametrize(("headers", "asked_s"), ASKED)
async def test_other_headers_that_ask_for_a_wait(headers, asked_s):
    (waited_s,) = await delays(error(429, "slow down", **headers))
    assert asked_s <= waited_s <= 1.25 * asked_s, "up to a quarter more, so that sessions do not come back together"


async def test_the_limits_of_an_answer_that_hit_none_are_not_waited_for():
    (waited_s,) = await delays(error(503, "busy", x_ratelimit_reset_requests="6m0s"))
    assert waited_s < 1.0


@pytest.mark.parametrize(
    ("counted", "usage"),
    [
        (
            {"prompt_tokens": 10, "completion_tokens": 2, "prompt_tokens_details": {"cached_tokens": 50}},
            Usage(10, 10, 2),
        ),
        ({"prompt_tokens": "10", "completion_tokens": 2.0, "prompt_tokens_details": None}, Usage(10, 0, 2)),
        (
            {"prompt_tokens": 10, "completion_tokens": 2, "prompt_tokens_details": {"cached_tokens": -3}},
            Usage(10, 0, 2),
        ),
        ({"prompt_tokens": 10}, None),
        ({"prompt_tokens": True, "completion_tokens": 2}, None),
        ({"prompt_tokens": -1, "completion_tokens": 2}, None),
        ({"prompt_tokens": 1.5, "completion_tokens": 2}, None),
        ({"prompt_tokens": "nan", "completion_tokens": "inf"}, None),
        ([], None),
    ],
)
def test_counts_that_contradict_themselves(counted, usage):
    assert read_usage(counted) == usage


def test_a_cost_is_never_negative():
    assert Prices(2.0, 0.0, 8.0).cost_usd(Usage(10, 50, 0)) == 0.0
