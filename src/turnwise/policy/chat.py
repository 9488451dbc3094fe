"""A policy behind an OpenAI-compatible endpoint: for evaluation only, under the model's own default decoding."""

import random
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from turnwise.errors import InputError, PolicyError
from turnwise.policy.endpoint import Endpoint, EndpointFailure, Reply
from turnwise.policy.protocol import changed_decoding
from turnwise.policy.transcript import decode_messages, encode_text
from turnwise.policy.waits import LONGEST_ASKED_S, Clock, LoopClock
from turnwise.types import Sample, Sampling

if TYPE_CHECKING:
    import torch

LONGEST_WAIT_S = 60.0  # between two tries, where the endpoint does not ask for more
NO_TEXT = "(no text)"  # stands for an empty message, which many services refuse
OnFailure = Callable[[str, str, str], None]


class ChatPolicy:
    """Samples from an endpoint. Its token ids are those of `TranscriptRenderer`, its log-probs 0: they are not known.

    A request carries the model, the messages and the fields of `request`, nothing else; a message without text is sent
    as NO_TEXT. What fails is tried again up to `attempts` times, after an exponential back-off from `first_wait_s` or,
    where longer, the time that the endpoint asks for, and each failure is reported to `on_failure(cause, session,
    detail)`. A 429 holds back every session, also those that wait for their turn, and each comes back at a moment of
    its own. At most `requests_per_minute` are begun, evenly spaced; as many run at once as there are callers. All waits
    go by `clock`.

    >>> endpoint = Endpoint("http://localhost:8000/v1", "Qwen/Qwen3-8B", None, None, timeout_s=60)  # doctest: +SKIP
    >>> policy = ChatPolicy(endpoint, request={"temperature": 0.7})  # doctest: +SKIP
    """

    def __init__(
        self,
        endpoint: Endpoint,
        *,
        request: Mapping[str, Any] | None = None,
        attempts: int = 6,
        first_wait_s: float = 1.0,
        requests_per_minute: float | None = None,
        on_failure: OnFailure = lambda cause, session, detail: None,
        clock: Clock | None = None,
    ) -> None:
        self._endpoint = endpoint
        self._request = dict(request or {})
        self._attempts = attempts
        self._first_wait_s = first_wait_s
        self._spacing_s = 60.0 / requests_per_minute if requests_per_minute else 0.0
        self._on_failure = on_failure
        self._clock = clock or LoopClock()
        self._next_start_s = 0.0  # by the clock, as is the next
        self._held_until_s = 0.0
        self._spread_s = 0.0

    @property
    def version(self) -> int:
        """0: an endpoint's weights have no number."""
        return 0

    async def sample(self, token_ids: Sequence[int], sampling: Sampling, session: str) -> Sample:
        """The model's response to the conversation that `token_ids` say, with the endpoint's count of tokens.

        Of `sampling` only the stop token is used: how long a response may get and how it is decoded is between the
        recipe's `policy.chat.request` and the endpoint. What limits and failures made it wait is not the model's time.
        Raises PolicyError when the endpoint goes on failing or refuses the request, InputError when it refuses the key
        the model or a setting, ContextExceeded, ContentRefused.
        """
        changed = changed_decoding(sampling)
        if changed:
            raise InputError(
                f"an endpoint decodes as it is set up; {', '.join(changed)} belongs in policy.chat.request"
            )
        said_before = decode_messages(token_ids)
        messages = [{"role": role, "content": content if content.strip() else NO_TEXT} for role, content in said_before]
        reply, took_s = await self._reply(messages, session)
        said = (*encode_text(reply.text), *(sampling.stop_token_ids[:1] if reply.finished else ()))
        return Sample(said, (0.0,) * len(said), self.version, reply.finished, reply.usage, took_s)

    async def _reply(self, messages: Sequence[Mapping[str, str]], session: str) -> tuple[Reply, float]:
        """The reply, and the seconds that the try that brought it took."""
        for attempt in range(self._attempts):
            await self._wait_for_turn()
            began_s = self._clock.time()
            try:
                return await self._endpoint.ask(messages, self._request), self._clock.time() - began_s
            except EndpointFailure as failure:
                self._on_failure(failure.cause, session, str(failure))
                last = failure
            if attempt + 1 < self._attempts:
                await self._back_off(last, attempt)
        raise PolicyError(f"{last} ({last.cause}, {self._attempts} attempts)") from last

    async def _wait_for_turn(self) -> None:
        """Take the next free start, and another one where a 429 came before it; the one thread makes taking atomic."""
        while True:
            now = self._clock.time()
            if now < self._held_until_s:
                await self._clock.sleep(self._held_until_s - now + random.uniform(0.0, self._spread_s))
                continue
            start = max(now, self._next_start_s)
            self._next_start_s = start + self._spacing_s
            await self._clock.sleep(start - now)
            if self._held_until_s <= self._clock.time():
                return

    async def _back_off(self, failure: EndpointFailure, attempt: int) -> None:
        if failure.wait_s is not None and failure.wait_s > LONGEST_ASKED_S:
            raise PolicyError(f"{failure} (asks to be left alone for {failure.wait_s:.0f} s)") from failure
        spread = random.uniform(0.75, 1.25)  # so that sessions that failed together do not come back together
        wait_s = max(min(self._first_wait_s * 2**attempt, LONGEST_WAIT_S) * spread, failure.wait_s or 0.0)
        if failure.cause == "endpoint_rate_limited":
            self._hold_back(wait_s)
        else:
            await self._clock.sleep(wait_s)

    def _hold_back(self, wait_s: float) -> None:
        """Let no session ask for so long, nor all of them at the moment that it is over."""
        until = self._clock.time() + wait_s
        if until > self._held_until_s:
            self._held_until_s, self._spread_s = until, wait_s / 4

    async def end_session(self, session: str) -> None:
        """An endpoint keeps no sessions."""

    async def update_weights(self, state: Mapping[str, "torch.Tensor"], version: int) -> None:
        """Raises InputError: nobody can train what an endpoint serves."""
        raise InputError(f"{self._endpoint}: an endpoint's weights cannot be set; train with policy.backend = 'torch'")

    async def close(self) -> None:
        """Let go of the connections."""
        await self._endpoint.close()
