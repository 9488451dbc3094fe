"""The settings of the agent's scaffold."""

from dataclasses import dataclass
from typing import Literal, get_args

from turnwise.errors import RecipeError

SystemPrompt = Literal["full", "compact"]


@dataclass(frozen=True)
class AgentConfig:
    """How an episode is set up and bounded (PAPER.md, appendix F; the turn limit is T_max of section 4.3).

    `system_prompt` "full" is for real models; "compact" costs a tenth of its tokens. `demonstration` appends the
    one-shot demonstration, for the first data collection with a base checkpoint only. An observation longer than
    `max_observation_chars` loses its middle; a patch of over `max_patch_bytes` is no submission, but an empty one.
    Raises `RecipeError` for a value that cannot work.

    >>> AgentConfig(system_prompt="compact", window_lines=24, max_turns=12).command_timeout_s
    60.0
    """

    system_prompt: SystemPrompt = "full"
    demonstration: bool = False
    window_lines: int = 100
    max_turns: int = 40
    context_tokens: int = 65_536
    max_response_tokens: int = 4_096
    command_timeout_s: float = 60.0
    episode_timeout_s: float = 3_600.0
    max_observation_chars: int = 20_000
    max_consecutive_format_errors: int = 5
    max_patch_bytes: int = 1_000_000

    def __post_init__(self) -> None:
        if self.system_prompt not in get_args(SystemPrompt):
            raise RecipeError(f"agent.system_prompt: {self.system_prompt!r} is none of {get_args(SystemPrompt)}")
        for name, least in _LEAST.items():
            if getattr(self, name) < least:
                raise RecipeError(f"agent.{name}: {getattr(self, name)} is too small; at least {least}")
        if self.max_response_tokens >= self.context_tokens:
            raise RecipeError(
                f"agent.max_response_tokens: {self.max_response_tokens} leaves no room in "
                f"agent.context_tokens ({self.context_tokens})"
            )


_LEAST = {
    "window_lines": 4,
    "max_turns": 1,
    "context_tokens": 2,
    "max_response_tokens": 1,
    "command_timeout_s": 0.1,
    "episode_timeout_s": 0.1,
    "max_observation_chars": 200,
    "max_consecutive_format_errors": 1,
    "max_patch_bytes": 1,
}
