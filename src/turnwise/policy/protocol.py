"""What every policy is: token ids in, sampled token ids and their log-probabilities out."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Protocol

from turnwise.errors import InputError
from turnwise.types import Sample, Sampling

if TYPE_CHECKING:
    import torch


class Policy(Protocol):
    """A source of responses. One `session` is one episode: what an engine keeps for it lives from turn to turn."""

    @property
    def version(self) -> int:
        """The number of the weights that the next sample is drawn from."""

    async def sample(self, token_ids: Sequence[int], sampling: Sampling, session: str) -> Sample:
        """Sample one response to the whole history `token_ids`; the same seed draws the same tokens.

        Raises InputError for a request that can't be served as asked, PolicyError when the engine fails,
        ContextExceeded when an endpoint holds that the history is too long for its model, ContentRefused when it
        declines to answer.
        """

    async def end_session(self, session: str) -> None:
        """Let go of what is kept for the session; an unknown session is no error."""

    async def update_weights(self, state: Mapping[str, "torch.Tensor"], version: int) -> None:
        """Sample from these weights from now on; requests under way finish on the old ones first."""

    async def close(self) -> None:
        """Stop the engine; requests still waiting fail with PolicyError."""


def changed_decoding(sampling: Sampling) -> list[str]:
    """The decoding parameters that change the distribution, as `name=value`; empty for plain temperature-1 sampling.

    >>> changed_decoding(Sampling(max_tokens=8, top_k=20))
    ['top_k=20']
    """
    plain = Sampling(sampling.max_tokens)
    names = ("temperature", "top_p", "top_k", "min_p", "repetition_penalty")
    return [f"{name}={getattr(sampling, name)}" for name in names if getattr(sampling, name) != getattr(plain, name)]


def check_training_sampling(sampling: Sampling) -> None:
    """Refuse any sampling but temperature 1 with every truncation off (PAPER.md, sec. 4.3 and finding 2)."""
    changed = changed_decoding(sampling)
    if changed:
        raise InputError(
            f"sampling for training is temperature 1 with nothing truncated, but {', '.join(changed)} was asked for: "
            "a changed distribution invalidates the importance ratio. For an evaluation with decoding of its own, "
            "make the policy with for_training=False."
        )


def check_sampling(sampling: Sampling) -> None:
    """Refuse values that no engine can serve, whatever the sampling is for (InputError)."""
    allowed = {
        "max_tokens": sampling.max_tokens >= 1,
        "seed": sampling.seed >= 0,
        "temperature": sampling.temperature >= 0,
        "top_p": 0 < sampling.top_p <= 1,
        "top_k": sampling.top_k >= 0,
        "min_p": 0 <= sampling.min_p <= 1,
        "repetition_penalty": sampling.repetition_penalty > 0,
    }
    wrong = [f"{name}={getattr(sampling, name)}" for name, fine in allowed.items() if not fine]
    if wrong:
        raise InputError(f"sampling parameters out of range: {', '.join(wrong)}")
