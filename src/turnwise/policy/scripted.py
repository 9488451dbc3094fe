"""A policy that says what it was told to: for tests, demonstrations and the making of training data."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Protocol

from turnwise.errors import PolicyError
from turnwise.types import Sample, Sampling

if TYPE_CHECKING:
    import torch


class Encoder(Protocol):
    """The one thing needed of a tokenizer."""

    def encode(self, text: str, *, add_special_tokens: bool) -> list[int]:
        """The token ids of `text`."""


Script = Callable[[str, int], str]


class ScriptedPolicy:
    """Answers turn k of every session with `responses[k]`, or with `responses(session, k)` when it is a function.

    A response ends with the request's first stop token (if it names any) and is cut at `max_tokens`. Every log-prob is
    0: the script is certain. Turns are counted from this policy's start.

    >>> from turnwise.types import Sampling
    >>> class Bytes:
    ...     def encode(self, text, *, add_special_tokens): return list(text.encode())
    >>> import asyncio
    >>> policy = ScriptedPolicy(["hi"], Bytes())
    >>> asyncio.run(policy.sample([1, 2], Sampling(max_tokens=9, stop_token_ids=(0,)), "episode")).token_ids
    (104, 105, 0)
    """

    def __init__(self, responses: Sequence[str] | Script, tokenizer: Encoder) -> None:
        self._responses = responses
        self._tokenizer = tokenizer
        self._turns: Counter[str] = Counter()
        self._version = 0

    @property
    def version(self) -> int:
        """The number last given to `update_weights`; 0 before."""
        return self._version

    async def sample(self, token_ids: Sequence[int], sampling: Sampling, session: str) -> Sample:
        """The session's next scripted response. Raises PolicyError when the script has no more."""
        response = self._response(session, self._turns[session])
        self._turns[session] += 1
        encoded = (*self._tokenizer.encode(response, add_special_tokens=False), *sampling.stop_token_ids[:1])
        tokens = encoded[: sampling.max_tokens]
        stopped = bool(tokens) and tokens[-1] in sampling.stop_token_ids
        return Sample(tokens, (0.0,) * len(tokens), self._version, stopped)

    def _response(self, session: str, turn: int) -> str:
        if callable(self._responses):
            return self._responses(session, turn)
        if turn >= len(self._responses):
            raise PolicyError(f"the script has {len(self._responses)} responses; {session} asked for one more")
        return self._responses[turn]

    async def end_session(self, session: str) -> None:
        """Forget how far the session had come."""
        del self._turns[session]

    async def update_weights(self, state: Mapping[str, "torch.Tensor"], version: int) -> None:
        """Take the version; a script has no weights."""
        self._version = version

    async def close(self) -> None:
        """Nothing runs, so nothing stops."""
