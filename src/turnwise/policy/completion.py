"""A chat completion as it comes over the wire, read into our own values."""

from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, Field, ValidationError, field_validator

from turnwise.usage import Usage

CUT = frozenset({"length", "max_tokens", "model_length"})
FILTERED = frozenset(
    {"content_filter", "refusal", "safety", "recitation", "prohibited_content", "blocklist", "spii", "sensitive"}
)
WHOLE = frozenset(
    {"", "stop", "eos", "eos_token", "end_turn", "stop_sequence", "tool_calls", "tool_use", "function_call"}
)
_TEXT = frozenset({"text", "output_text"})
_REASONING = frozenset({"thinking", "redacted_thinking", "reasoning", "reasoning_content", "reasoning_text"})


class Message(BaseModel):
    """The reply. `content` is its text; reasoning and calls of tools, which nothing here asks for, are left out."""

    content: str | None = None
    refusal: str | None = None

    @field_validator("content", mode="before")
    @classmethod
    def _joined(cls, given: Any) -> Any:
        """Some write a text as a list of its parts."""
        return "".join(map(_part_text, given)) if isinstance(given, list) else given


class Choice(BaseModel):
    """One reply with why it ended, in lower case ("" where nothing is said)."""

    message: Message
    finish_reason: str = ""

    @field_validator("finish_reason", mode="before")
    @classmethod
    def _lower(cls, given: Any) -> Any:
        return given.lower() if isinstance(given, str) else given or ""


class Completion(BaseModel):
    """The whole answer; one that has an error instead does not come here."""

    choices: list[Choice] = Field(min_length=1)
    usage: Any = None


class Failed(BaseModel):
    """What an answer of HTTP 200 may hold instead of a reply: an error at its top or in its choice."""

    error: Any = None
    choices: Annotated[list[Any], BeforeValidator(lambda given: given if isinstance(given, list) else [])] = []

    @property
    def found(self) -> Any:
        """The error, None where there is none."""
        choice = self.choices[0] if self.choices and isinstance(self.choices[0], dict) else {}
        return self.error or choice.get("error") or None


def read_usage(counted: Any) -> Usage | None:
    """The tokens that an endpoint counted, None where prompt or reply are not counted in a way one can understand.

    Whole numbers written as text or with a fraction of 0 are taken. Where more is said to be cached than was read, all
    that was read is taken as cached.

    >>> read_usage({"prompt_tokens": 10, "completion_tokens": "2", "prompt_tokens_details": {"cached_tokens": 50}})
    Usage(prompt_tokens=10, cached_tokens=10, completion_tokens=2)
    """
    if not isinstance(counted, dict):
        return None
    prompt, completion = _count(counted.get("prompt_tokens")), _count(counted.get("completion_tokens"))
    if prompt is None or completion is None:
        return None
    details = counted.get("prompt_tokens_details")
    cached = _count(details.get("cached_tokens")) if isinstance(details, dict) else None
    deepseeks = _count(counted.get("prompt_cache_hit_tokens"))
    return Usage(prompt, min(cached or deepseeks or 0, prompt), completion)


def first_fault(error: ValidationError) -> str:
    """Where a body stops being a chat completion, and how."""
    first = error.errors(include_url=False)[0]
    place = ".".join(str(part) for part in first["loc"])
    return f"{place}: {first['msg']}" if place else first["msg"]


def _part_text(part: Any) -> str:
    kind = part.get("type") if isinstance(part, dict) else None
    if isinstance(part, str):
        return part
    if kind in _REASONING:
        return ""
    if kind in _TEXT and isinstance(part.get("text"), str):
        return str(part["text"])
    raise ValueError(f"a part of type {kind!r} is no text" if kind not in _TEXT else "a part of text without text")


def _count(given: Any) -> int | None:
    """A count of tokens, None where it is none."""
    if isinstance(given, bool) or not isinstance(given, int | float | str):
        return None
    try:
        number = float(given)
    except (ValueError, OverflowError):
        return None
    return int(number) if number >= 0 and number.is_integer() else None
