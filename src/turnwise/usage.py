"""What responses cost: tokens as an endpoint counts them, and their price (floor 0)."""

from dataclasses import dataclass

_MILLION = 1_000_000


@dataclass(frozen=True)
class Usage:
    """Tokens as an endpoint bills them: `cached_tokens` of the `prompt_tokens` were read from its cache.

    `completion_tokens` count what the model thought as well as what it said.

    >>> Usage(900, 600, 20) + Usage(1000, 900, 30)
    Usage(prompt_tokens=1900, cached_tokens=1500, completion_tokens=50)
    """

    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0

    def __add__(self, other: "Usage") -> "Usage":
        """Both together."""
        return Usage(
            self.prompt_tokens + other.prompt_tokens,
            self.cached_tokens + other.cached_tokens,
            self.completion_tokens + other.completion_tokens,
        )


@dataclass(frozen=True)
class Prices:
    """US dollars per million tokens. `cached` is for the part of a prompt that the endpoint had in its cache.

    >>> round(Prices(prompt=2.0, cached=0.5, completion=8.0).cost_usd(Usage(1_000_000, 600_000, 100_000)), 3)
    1.9
    """

    prompt: float
    cached: float
    completion: float

    def cost_usd(self, usage: Usage) -> float:
        """What this usage costs."""
        fresh = max(usage.prompt_tokens - usage.cached_tokens, 0)
        paid = fresh * self.prompt + usage.cached_tokens * self.cached + usage.completion_tokens * self.completion
        return paid / _MILLION
