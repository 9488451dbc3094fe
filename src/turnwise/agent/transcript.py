"""Conversations for an endpoint: what `ChatRenderer` is for a tokenizer, without one."""

from collections.abc import Sequence
from typing import Protocol

from turnwise.agent.messages import Message
from turnwise.policy.transcript import END, ROLES, decode_text, encode_messages
from turnwise.types import Turn

BYTES_PER_TOKEN = 4.0  # until the endpoint has counted a prompt: the usual figure for English and code


class Renderer(Protocol):
    """Turns an episode's conversation into the ids that its policy takes, and the policy's ids into text."""

    @property
    def stop_token_ids(self) -> tuple[int, ...]:
        """What ends a response."""

    def opening(self, messages: Sequence[Message]) -> list[int]:
        """The ids of the opening messages, up to where the first response begins."""

    def observation(self, text: str, stopped: bool = True) -> list[int]:
        """The ids between the last one sampled and the next response, around the observation."""

    def decode(self, token_ids: Sequence[int]) -> str:
        """The text of a response, without the stop token that ended it."""

    def context_tokens(self, length: int, last: Turn | None) -> int:
        """How many of the model's tokens a history of `length` ids is; `last` is the episode's last turn so far."""


class TranscriptRenderer:
    """Renders for `ChatPolicy`: ids are bytes and marks of roles, from which the messages can be read back.

    Their number says little about the model's tokens. `context_tokens` goes by what the endpoint counted for the last
    prompt, and before it has by four bytes a token.

    >>> renderer = TranscriptRenderer()
    >>> renderer.decode([104, 105, *renderer.stop_token_ids])
    'hi'
    """

    stop_token_ids = (END,)

    def opening(self, messages: Sequence[Message]) -> list[int]:
        """The whole messages, and the mark of the assistant's next."""
        return [*encode_messages((message.role, message.content) for message in messages), ROLES["assistant"]]

    def observation(self, text: str, stopped: bool = True) -> list[int]:
        """The observation as the user's words; a response that was cut short is ended here."""
        ended = [] if stopped else [END]
        return [*ended, *encode_messages([("user", text)]), ROLES["assistant"]]

    def decode(self, token_ids: Sequence[int]) -> str:
        """The text of a response."""
        return decode_text(token_ids)

    def context_tokens(self, length: int, last: Turn | None) -> int:
        """`length` bytes at the rate of the last prompt that the endpoint counted."""
        prompt_tokens = last.usage.prompt_tokens if last is not None and last.usage is not None else 0
        if last is None or not prompt_tokens:
            return round(length / BYTES_PER_TOKEN)
        return round(length * prompt_tokens / last.start)
