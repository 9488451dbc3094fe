"""How long the headers of an error answer ask to be left alone."""

import pytest

from turnwise.policy.waits import asked_wait_s, duration_s, retry_after_s


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("1s", 1.0),
        ("6m0s", 360.0),
        ("1m30.5s", 90.5),
        ("120ms", 0.12),
        ("1h0m1s", 3601.0),
        ("2m59.56s", 179.56),
        ("0s", 0.0),
        ("7", 7.0),
        ("0.5", 0.5),
        ("", None),
        ("-1s", None),
        ("1 s", None),
        ("1hs", None),
        ("s", None),
        ("1s soon", None),
        ("-7", None),
        ("nan", None),
        ("inf", None),
    ],
)
def test_durations(text, seconds):
    assert duration_s(text) == (None if seconds is None else pytest.approx(seconds))


def limits(**left):
    """The headers of a limit: `requests=("0", "1s")` is what remains and when that resets."""
    remaining = {f"x-ratelimit-remaining-{kind}": count for kind, (count, _) in left.items() if count is not None}
    return remaining | {f"x-ratelimit-reset-{kind}": reset for kind, (_, reset) in left.items()}


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        (limits(requests=(None, "1s"), tokens=(None, "2s")), 2.0),
        (limits(requests=("900", "3m0s"), tokens=("0", "7s")), 7.0),
        (limits(requests=("0", "3m0s"), tokens=("0", "7s")), 180.0),
        (limits(requests=("499", "120ms"), tokens=("12", "59s")), 59.0),
        (limits(requests=(None, "23h59m51s"), tokens=(None, "2s")), 2.0),
        (limits(requests=(None, "23h59m51s")), None),
        (limits(requests=(None, "soon")), None),
        ({}, None),
    ],
)
def test_a_rate_limit_is_waited_out(headers, seconds):
    assert asked_wait_s(429, headers) == seconds
    assert asked_wait_s(503, headers) is None
    assert asked_wait_s(429, headers | {"retry-after": "3"}) == 3.0


@pytest.mark.parametrize("reset", ["30", "1700000030", "1700000030000"])
def test_a_moment_is_told_from_a_delay(reset):
    assert asked_wait_s(503, {"x-ratelimit-reset": reset}, now_s=1_700_000_000.0) == 30.0


def test_a_retry_after_as_a_date_is_the_time_until_then():
    assert retry_after_s("Thu, 01 Jan 1970 00:01:00 GMT", now_s=20.0) == 40.0
    assert retry_after_s("Thu, 01 Jan 1970 00:01:00 GMT", now_s=80.0) == 0.0
    assert retry_after_s("-5") == 0.0
