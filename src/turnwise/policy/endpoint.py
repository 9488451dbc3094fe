"""One OpenAI-compatible endpoint: asks it once, and says what came of it in our own words.

Answers are read as they come over the wire. The client library would take a web page, or JSON of another shape, for a
completion, and its own retries go uncounted; so it is told to make none, and every failure reaches `ChatPolicy`.
"""

import asyncio
import email.utils
import math
import re
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BaseModel, Field, ValidationError, field_validator

from turnwise.errors import ContextExceeded, InputError, PolicyError, TurnwiseError
from turnwise.usage import Usage

if TYPE_CHECKING:
    import openai

EXCERPT_CHARS = 300
LARGEST_ANSWER_BYTES = 16_000_000  # several times what the longest context holds
_RETRIED = frozenset({408, 409, 425, 429})  # beside every 5xx
_TOO_LONG = re.compile(
    r"context[ _](length|window|size)|maximum model length"
    r"|(prompt|input)\b.*\b(too long|longer than|too large|exceeds)",
    re.IGNORECASE | re.DOTALL,
)


@dataclass(frozen=True)
class Reply:
    """What the model said, and how long it took. `finished` is False where the endpoint cut it short.

    >>> Reply("Done.", True, Usage(12, 0, 3), took_s=0.8).text
    'Done.'
    """

    text: str
    finished: bool
    usage: Usage | None
    took_s: float


class EndpointFailure(Exception):
    """One request failed in a way that another may not. `cause` is the word it is counted under.

    `wait_s` is how long the endpoint asks to be left alone, None where it does not say.
    """

    def __init__(self, cause: str, detail: str, wait_s: float | None = None) -> None:
        super().__init__(detail)
        self.cause = cause
        self.wait_s = wait_s


class _Message(BaseModel):
    content: str | None = None

    @field_validator("content", mode="before")
    @classmethod
    def _joined(cls, given: Any) -> Any:
        """Some write a text as a list of its parts."""
        parts = given if isinstance(given, list) else [None]
        texts = [part.get("text") for part in parts if isinstance(part, dict) and part.get("type") == "text"]
        said = [text for text in texts if isinstance(text, str)]
        return "".join(said) if len(said) == len(parts) else given


class _Choice(BaseModel):
    message: _Message
    finish_reason: str | None = None


_Count = Annotated[int, Field(ge=0)]


class _Cached(BaseModel):
    cached_tokens: _Count | None = None


class _Usage(BaseModel):
    prompt_tokens: _Count
    completion_tokens: _Count
    prompt_tokens_details: _Cached | None = None
    prompt_cache_hit_tokens: _Count | None = None  # DeepSeek's name for what others call cached_tokens

    @staticmethod
    def read(counted: Any) -> Usage | None:
        """None where the endpoint counts nothing that can be understood: a reply is worth having without."""
        try:
            found = _Usage.model_validate(counted)
        except ValidationError:
            return None
        details = found.prompt_tokens_details or _Cached()
        cached = details.cached_tokens or found.prompt_cache_hit_tokens or 0
        return Usage(found.prompt_tokens, cached, found.completion_tokens)


class _Completion(BaseModel):
    choices: list[_Choice] = Field(min_length=1)
    usage: Any = None


class Endpoint:
    """Chat completions of one `model` at `base_url` (".../v1").

    `api_key_env` names the environment variable that holds the key; it is for messages only. Raises InputError where
    the extra `chat` is not installed. Close it in the loop that used it.
    """

    def __init__(
        self, base_url: str, model: str, api_key: str | None, api_key_env: str | None, timeout_s: float
    ) -> None:
        try:
            import openai
        except ModuleNotFoundError as error:
            raise InputError("an endpoint needs the openai package: pip install 'turnwise[chat]'") from error
        self.base_url = base_url
        self.model = model
        self._api_key_env = api_key_env
        self._timeout_s = timeout_s
        self._client = openai.AsyncOpenAI(
            base_url=base_url, api_key=api_key or "none", timeout=timeout_s, max_retries=0
        )

    async def ask(self, messages: Sequence[Mapping[str, str]], request: Mapping[str, Any]) -> Reply:
        """The model's reply to the conversation; `request` goes along as further fields of the body.

        Raises EndpointFailure where it is worth another try, PolicyError where the endpoint refuses this request,
        InputError where it would refuse all of them, ContextExceeded where the conversation is too long for the model.
        """
        import openai

        began = time.perf_counter()
        try:
            async with asyncio.timeout(self._timeout_s):  # the client's own holds for each read alone
                body = await self._body(messages, request)
        except (TimeoutError, openai.APITimeoutError) as error:
            raise EndpointFailure("endpoint_timeout", f"{self}: no answer in {self._timeout_s:g} s") from error
        except openai.APIConnectionError as error:
            raise EndpointFailure("endpoint_unreachable", f"{self}: {error.__cause__ or error}") from error
        except openai.APIStatusError as error:
            raise self._refused(error) from error
        return self._read(body, time.perf_counter() - began)

    async def _body(self, messages: Sequence[Mapping[str, str]], request: Mapping[str, Any]) -> str:
        asked = self._client.chat.completions.with_streaming_response.create(
            model=self.model,
            messages=list(messages),  # type: ignore[arg-type]  # its typed dicts say the same
            extra_body=dict(request),
        )
        body = bytearray()
        async with asked as response:
            async for chunk in self._chunks(response.iter_bytes()):
                body += chunk
                if len(body) > LARGEST_ANSWER_BYTES:
                    said = f"{self}: an answer of more than {LARGEST_ANSWER_BYTES / 1e6:g} MB: {_excerpt(_text(body))}"
                    raise EndpointFailure("endpoint_garbage", said)
        return _text(body)

    async def _chunks(self, arriving: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        try:
            async for chunk in arriving:
                yield chunk
        except Exception as error:  # the transport's own, which is another library in every version of the client
            raise EndpointFailure("endpoint_unreachable", f"{self}: {error or type(error).__name__}") from error

    async def close(self) -> None:
        """Let go of the connections."""
        await self._client.close()

    def __str__(self) -> str:
        return f"{self.base_url} (model {self.model})"

    def _read(self, body: str, took_s: float) -> Reply:
        try:
            completion = _Completion.model_validate_json(body)
        except ValidationError as error:
            said = f"{self}: not a chat completion ({_first_fault(error)}): {_excerpt(body)}"
            raise EndpointFailure("endpoint_garbage", said) from error
        choice = completion.choices[0]
        return Reply(
            text=choice.message.content or "",
            finished=choice.finish_reason != "length",
            usage=_Usage.read(completion.usage),
            took_s=took_s,
        )

    def _refused(self, error: "openai.APIStatusError") -> EndpointFailure | TurnwiseError:
        """What an HTTP status of 4xx or 5xx means for the request."""
        status, said = error.status_code, f"{self}: HTTP {error.status_code}: {_excerpt(error.response.text)}"
        if error.code == "context_length_exceeded" or (status < 500 and _TOO_LONG.search(error.response.text)):
            return ContextExceeded(said)
        if status in (401, 402, 403, 404) or error.code == "insufficient_quota":
            return InputError(f"{said}\n{self._advice(status)}")
        if status not in _RETRIED and status < 500:
            return PolicyError(said)
        cause = "endpoint_rate_limited" if status == 429 else "endpoint_server_error"
        return EndpointFailure(cause, said, retry_after_s(error.response.headers.get("retry-after")))

    def _advice(self, status: int) -> str:
        if status in (401, 403) and self._api_key_env is None:
            return (
                "no API key was given: name the environment variable that holds one "
                "(policy.chat.api_key_env, --api-key-env)"
            )
        if status in (401, 403):
            return f"the endpoint refuses the API key in {self._api_key_env}; the same command goes on once it is right"
        if status == 404:
            return (
                f"check the model's name ({self.model!r}: model.name, --model) and the address "
                f"({self.base_url!r}: policy.chat.base_url, --endpoint), which ends with what stands before "
                "/chat/completions"
            )
        return "the account has no credit left; the same command goes on once it has"


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


def _first_fault(error: ValidationError) -> str:
    first = error.errors(include_url=False)[0]
    place = ".".join(str(part) for part in first["loc"])
    return f"{place}: {first['msg']}" if place else first["msg"]


def _text(body: bytes | bytearray) -> str:
    return body.decode("utf-8", "replace")


def _excerpt(body: str) -> str:
    words = " ".join(body[: 10 * EXCERPT_CHARS].split())
    return words if len(words) <= EXCERPT_CHARS else words[:EXCERPT_CHARS] + "…"
