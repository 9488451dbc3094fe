"""Waiting between requests: the clock that it goes by, and how long an error answer asks to be left alone."""

import asyncio
import email.utils
import math
import re
import time
from collections.abc import Mapping
from typing import Protocol

LONGEST_ASKED_S = 600.0  # a longer Retry-After is a refusal
_UNITS_S = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 1e-3, "us": 1e-6, "ns": 1e-9}
_PART = re.compile(r"(?P<number>\d+(?:\.\d*)?|\.\d+)(?P<unit>[mun]?s|[hm])")


class Clock(Protocol):
    """Time in seconds from an arbitrary start."""

    def time(self) -> float:
        """The time now."""

    async def sleep(self, delay_s: float) -> None:
        """Come back once `delay_s` have passed; at once where it is not positive."""


class LoopClock:
    """The running event loop's own clock."""

    def time(self) -> float:
        """The time now."""
        return asyncio.get_running_loop().time()

    async def sleep(self, delay_s: float) -> None:
        """As `asyncio.sleep`."""
        await asyncio.sleep(delay_s)


def retry_after_s(header: str | None, now_s: float | None = None) -> float | None:
    """Seconds that a Retry-After header asks for, as a number or as an HTTP date (RFC 9110, 10.2.3).

    None without one, and for one that is neither.

    >>> retry_after_s("2.5")
    2.5
    >>> retry_after_s("Thu, 01 Jan 1970 00:01:00 GMT", now_s=20.0)
    40.0
    """
    if header is None:
        return None
    try:
        asked_s = float(header)
    except ValueError:
        asked_s = _date_s(header) - (time.time() if now_s is None else now_s)
    return max(asked_s, 0.0) if math.isfinite(asked_s) else None


def _date_s(header: str) -> float:
    """An HTTP date in seconds since 1970; not a number where there is no such date."""
    try:
        return email.utils.parsedate_to_datetime(header).timestamp()
    except (ValueError, OverflowError):
        return math.nan


def asked_wait_s(status: int, headers: Mapping[str, str], now_s: float | None = None) -> float | None:
    """Seconds that an error answer of HTTP `status` asks to be left alone; None where no header says so.

    `x-ratelimit-reset` is a number of seconds, or a moment in seconds or milliseconds since 1970; one that is further
    off than a request would wait is a quota's period and says nothing about the next try. `now_s` is the time since
    1970, by default the machine's.

    >>> asked_wait_s(429, {"retry-after": "2", "x-ratelimit-reset-requests": "6m0s"})
    2.0
    >>> asked_wait_s(429, {"x-ratelimit-reset-requests": "6m0s"})
    360.0
    """
    now_s = time.time() if now_s is None else now_s
    milliseconds = retry_after_s(headers.get("retry-after-ms"), now_s)
    asked_s = retry_after_s(headers.get("retry-after"), now_s) if milliseconds is None else milliseconds / 1000
    reset_s = retry_after_s(headers.get("x-ratelimit-reset"), now_s)
    if asked_s is not None:
        return asked_s
    if reset_s is None:
        return _limits_reset_s(headers) if status == 429 else None
    seconds = reset_s / 1000 if reset_s > 1e11 else reset_s
    left_s = seconds - now_s if seconds > 1e8 else seconds
    return left_s if 0 <= left_s <= 60 else None


def _limits_reset_s(headers: Mapping[str, str]) -> float | None:
    """When the limits on requests and on tokens are as good as new: OpenAI's headers, which every answer carries.

    They are heeded where a limit was hit, and then those of a limit of which nothing remains; where that is said of
    neither, both. One further off than a Retry-After may be is a day's quota, which lets requests through before then.
    """
    kinds = ("requests", "tokens")
    spent = [kind for kind in kinds if headers.get(f"x-ratelimit-remaining-{kind}") == "0"]
    resets = [duration_s(headers.get(f"x-ratelimit-reset-{kind}", "")) for kind in spent or kinds]
    return max((each for each in resets if each is not None and each <= LONGEST_ASKED_S), default=None)


def duration_s(text: str) -> float | None:
    """The seconds of a duration as Go writes it (time.Duration), or of a plain number; None for anything else.

    >>> duration_s("1m30.5s"), duration_s("120ms"), duration_s("7"), duration_s("soon")
    (90.5, 0.12, 7.0, None)
    """
    parts = list(_PART.finditer(text))
    if text and "".join(part[0] for part in parts) == text:
        return sum(float(part["number"]) * _UNITS_S[part["unit"]] for part in parts)
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) and number >= 0 else None
