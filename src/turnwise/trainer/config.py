"""What an optimizer step is made of (PAPER.md, phases 1 and 2, appendix C)."""

import math
from dataclasses import dataclass
from typing import Literal

from turnwise.errors import InputError


@dataclass(frozen=True)
class TrainerConfig:
    """How a trainer steps. Defaults are the paper's stage 1, but for the size of what is computed at once.

    `batch_size`: trajectories per optimizer step, at most. `micro_batch_tokens`: padded tokens per forward and backward
    pass; a longer trajectory goes alone. `logprob_chunk_tokens`: action tokens per projection onto the vocabulary; it
    bounds memory to [logprob_chunk_tokens, V], forward and backward. Neither changes a result beyond rounding.

    `total_steps`: where the cosine reaches 0, counted over the trainer's life; None: at the end of each call of
    `fine_tune` or `reinforce`. `threads`: CPU threads while training; 0 leaves torch's setting. `max_mismatch`: the
    mean absolute difference (nats) between the engine's and the trainer's log-probs that `check_mismatch` tolerates.

    Raises InputError for a value that makes no sense or has no effect.

    >>> TrainerConfig(lr=5e-6, schedule="cosine", warmup_steps=10, total_steps=50, batch_size=64).weight_decay
    0.1
    """

    lr: float = 1e-6
    weight_decay: float = 0.1
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    warmup_steps: int = 0
    total_steps: int | None = None
    schedule: Literal["cosine", "constant"] = "constant"
    grad_clip: float = 1.0
    batch_size: int = 128
    micro_batch_tokens: int = 8192
    clip_low: float = 0.2
    clip_high: float = 0.3
    logprob_chunk_tokens: int = 1024
    threads: int = 0
    max_mismatch: float = 0.02
    device: str = "cpu"

    def __post_init__(self) -> None:
        sizes = ("batch_size", "micro_batch_tokens", "logprob_chunk_tokens", "total_steps")
        for name in ("lr", "eps", "grad_clip", "max_mismatch", *sizes):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise InputError(f"trainer: {name} must be above 0, not {value}")
        for name in ("weight_decay", "warmup_steps", "clip_low", "clip_high", "threads"):
            if not getattr(self, name) >= 0:
                raise InputError(f"trainer: {name} must not be negative, not {getattr(self, name)}")
        if not self.clip_low < 1:
            raise InputError(f"trainer: clip_low must be below 1 (a ratio is never negative), not {self.clip_low}")
        if self.schedule not in ("cosine", "constant"):
            raise InputError(f'trainer: schedule must be "cosine" or "constant", not "{self.schedule}"')
        self._check_schedule()

    def _check_schedule(self) -> None:
        if self.total_steps is None:
            return
        if self.schedule == "constant":
            raise InputError('trainer: total_steps has no effect with schedule = "constant"; leave it out')
        if self.warmup_steps >= self.total_steps:
            raise InputError(
                f"trainer: warmup_steps ({self.warmup_steps}) must be below total_steps ({self.total_steps})"
            )


def learning_rate(step: int, config: TrainerConfig, end: int) -> float:
    """Return the learning rate of optimizer step `step` (from 0): linear warm-up, then constant, or cosine to `end`.

    The warm-up's first step takes lr / warmup_steps, not 0, so that no step is wasted. A warm-up that does not fit
    before `end` is cut to it. From `end` on the cosine is 0.

    >>> config = TrainerConfig(lr=1.0, warmup_steps=2, schedule="cosine", total_steps=6)
    >>> [round(learning_rate(step, config, end=6), 3) for step in range(7)]
    [0.5, 1.0, 1.0, 0.854, 0.5, 0.146, 0.0]
    """
    if step < config.warmup_steps:
        return config.lr * (step + 1) / config.warmup_steps
    if config.schedule == "constant":
        return config.lr
    progress = (step - config.warmup_steps) / max(1, end - config.warmup_steps)
    return config.lr * 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))
