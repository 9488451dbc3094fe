"""One OpenAI-compatible endpoint: asks it once, and says what came of it in our own words.

Answers are read as they come over the wire. The client library would take a web page, or JSON of another shape, for a
completion, and its own retries go uncounted; so it is told to make none, and every failure reaches `ChatPolicy`.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from turnwise.errors import ContentRefused, ContextExceeded, InputError, PolicyError, TurnwiseError
from turnwise.policy.completion import CUT, FILTERED, WHOLE, Completion, Failed, first_fault, read_usage
from turnwise.policy.refusals import LIMIT_KEYS, Refusal, Split, classify, named_settings, split_of
from turnwise.policy.waits import asked_wait_s
from turnwise.usage import Usage

EXCERPT_CHARS = 300
LARGEST_ANSWER_BYTES = 16_000_000  # several times what the longest context holds
USEFUL_TOKENS = 256  # a reply of fewer has no room for a thought and a command


@dataclass(frozen=True)
class Reply:
    """What the model said. `finished` is False where the endpoint cut it short.

    >>> Reply("Done.", True, Usage(12, 0, 3)).text
    'Done.'
    """

    text: str
    finished: bool
    usage: Usage | None


class EndpointFailure(Exception):
    """One request failed in a way that another may not. `cause` is the word it is counted under.

    `wait_s` is how long the endpoint asks to be left alone, None where it does not say.
    """

    def __init__(self, cause: str, detail: str, wait_s: float | None = None) -> None:
        super().__init__(detail)
        self.cause = cause
        self.wait_s = wait_s


class _SystemRoleRefused(Exception):
    """The model takes no system message."""


class _LimitTooLarge(Exception):
    """The limit of the reply does not fit into the window beside the prompt, which does."""

    def __init__(self, said: str, split: Split) -> None:
        super().__init__(said)
        self.split = split


_POLICYS_DOING: Mapping[Refusal, type[TurnwiseError]] = {
    Refusal.CONTEXT: ContextExceeded,
    Refusal.CONTENT: ContentRefused,
}
_USERS = (Refusal.KEY, Refusal.CREDIT, Refusal.MODEL)


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
        self._no_system_role = False
        self._client = openai.AsyncOpenAI(
            base_url=base_url, api_key=api_key or "none", timeout=timeout_s, max_retries=0
        )

    async def ask(self, messages: Sequence[Mapping[str, str]], request: Mapping[str, Any]) -> Reply:
        """The model's reply to the conversation; `request` goes along as further fields of the body.

        A conversation whose system prompt the model refuses is sent again with it at the head of the first user
        message, and those after it are sent so at once. A limit of the reply that no longer fits beside a grown
        conversation is lowered to what does, once.

        Raises EndpointFailure where it is worth another try, PolicyError where the endpoint refuses this request,
        InputError where it would refuse all of them, ContextExceeded where the conversation is too long for the model,
        ContentRefused where model or service decline to answer it.
        """
        fields = dict(request)
        plain = without_system(messages)
        sent = plain if self._no_system_role else list(messages)
        while True:
            try:
                return await self._once(sent, fields)
            except _SystemRoleRefused as refused:
                if sent == plain:
                    raise PolicyError(str(refused)) from refused
                self._no_system_role = True
                sent = plain
            except _LimitTooLarge as refused:
                fields = self._with_less(refused, messages, fields, request)

    async def _once(self, messages: Sequence[Mapping[str, str]], fields: Mapping[str, Any]) -> Reply:
        import openai

        try:
            async with asyncio.timeout(self._timeout_s):  # the client's own holds for each read alone
                body = await self._body(messages, fields)
        except (TimeoutError, openai.APITimeoutError) as error:
            raise EndpointFailure("endpoint_timeout", f"{self}: no answer in {self._timeout_s:g} s") from error
        except openai.APIConnectionError as error:
            raise EndpointFailure("endpoint_unreachable", f"{self}: {error.__cause__ or error}") from error
        except openai.APIStatusError as error:
            answer = error.response
            wait_s = asked_wait_s(error.status_code, answer.headers)
            raise self._refused(error.status_code, answer.text, fields, wait_s) from error
        return self._read(body, fields)

    def _with_less(
        self,
        refused: "_LimitTooLarge",
        messages: Sequence[Mapping[str, str]],
        fields: Mapping[str, Any],
        request: Mapping[str, Any],
    ) -> dict[str, Any]:
        """The fields with a limit that fits. One that does not fit beside an opening is the user's to mend."""
        key = next((each for each in LIMIT_KEYS if each in request), None)
        first = all(message["role"] != "assistant" for message in messages)
        if dict(fields) != dict(request) or (first and key is not None):
            raise InputError(f"{refused}\nlower policy.chat.request.{key or LIMIT_KEYS[0]}: {refused.split.room} fits")
        if refused.split.room < USEFUL_TOKENS:
            raise ContextExceeded(str(refused))
        return {**request, key or LIMIT_KEYS[0]: refused.split.room}

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

    def _read(self, body: str, fields: Mapping[str, Any]) -> Reply:
        try:
            failed = Failed.model_validate_json(body).found
            if failed is not None:
                raise self._refused(_status(failed), json.dumps({"error": failed}), fields, None)
            completion = Completion.model_validate_json(body)
        except ValidationError as error:
            said = f"{self}: not a chat completion ({first_fault(error)}): {_excerpt(body)}"
            raise EndpointFailure("endpoint_garbage", said) from error
        choice = completion.choices[0]
        if choice.finish_reason in FILTERED or (choice.message.refusal and not choice.message.content):
            raise ContentRefused(f"{self}: {choice.finish_reason}: {_excerpt(choice.message.refusal or body)}")
        if choice.finish_reason not in CUT | WHOLE:
            raise EndpointFailure("endpoint_server_error", f"{self}: finish_reason {choice.finish_reason!r}")
        return Reply(
            text=choice.message.content or "",
            finished=choice.finish_reason not in CUT,
            usage=read_usage(completion.usage),
        )

    def _refused(self, status: int, text: str, fields: Mapping[str, Any], wait_s: float | None) -> Exception:
        """What an error answer means for the request; `refusals.py` knows the wordings."""
        said = f"{self}: HTTP {status}: {_excerpt(text)}"
        split = split_of(text) if status < 500 else None
        if split is not None and split.room > 0:
            return _LimitTooLarge(said, split)
        kind = Refusal.CONTEXT if split is not None else classify(status, text, _codes(text), fields)
        if kind in (Refusal.RATE, Refusal.SERVER):
            cause = "endpoint_rate_limited" if kind is Refusal.RATE else "endpoint_server_error"
            return EndpointFailure(cause, said, wait_s)
        if kind is Refusal.SYSTEM_ROLE:
            return _SystemRoleRefused(said)
        if kind in _POLICYS_DOING:
            return _POLICYS_DOING[kind](said)
        if kind is Refusal.SETTING:
            keys = ", ".join(f"policy.chat.request.{key}" for key in named_settings(text, fields))
            return InputError(f"{said}\nchange or remove {keys}")
        return InputError(f"{said}\n{self._advice(kind)}") if kind in _USERS else PolicyError(said)

    def _advice(self, kind: Refusal) -> str:
        if kind is Refusal.KEY and self._api_key_env is None:
            return (
                "no API key was given: name the environment variable that holds one "
                "(policy.chat.api_key_env, --api-key-env)"
            )
        if kind is Refusal.KEY:
            return f"the endpoint refuses the API key in {self._api_key_env}; the same command goes on once it is right"
        if kind is Refusal.MODEL:
            return (
                f"check the model's name ({self.model!r}: model.name, --model) and the address "
                f"({self.base_url!r}: policy.chat.base_url, --endpoint), which ends with what stands before "
                "/chat/completions"
            )
        return "the account has no credit left; the same command goes on once it has"


def without_system(messages: Sequence[Mapping[str, str]]) -> list[Mapping[str, str]]:
    """The conversation with its system prompt at the head of the first user message.

    >>> without_system([{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi."}])
    [{'role': 'user', 'content': 'Be brief.\\n\\nHi.'}]
    """
    if len(messages) < 2 or (messages[0]["role"], messages[1]["role"]) != ("system", "user"):
        return list(messages)
    return [{"role": "user", "content": f"{messages[0]['content']}\n\n{messages[1]['content']}"}, *messages[2:]]


def _codes(text: str) -> list[str]:
    """The codes and types of an error body, at its top and inside `error`, also of one wrapped in another."""
    try:
        body = json.loads(text)
    except (ValueError, RecursionError):
        return []
    levels = [body, body.get("error")] if isinstance(body, dict) else []
    levels += [each.get("innererror") for each in levels if isinstance(each, dict)]
    named = [each.get(key) for each in levels if isinstance(each, dict) for key in ("code", "type")]
    return [each for each in named if isinstance(each, str)]


def _status(error: Any) -> int:
    """The HTTP status that an error inside an answer of HTTP 200 stands for; 500 where it names none."""
    code = error.get("code") if isinstance(error, dict) else None
    return code if isinstance(code, int) and 400 <= code < 600 else 500


def _text(body: bytes | bytearray) -> str:
    return body.decode("utf-8", "replace")


def _excerpt(body: str) -> str:
    words = " ".join(body[: 10 * EXCERPT_CHARS].split())
    return words if len(words) <= EXCERPT_CHARS else words[:EXCERPT_CHARS] + "…"
