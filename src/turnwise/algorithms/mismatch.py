"""Do the sampling engine and the trainer speak of the same distribution? (PAPER.md, finding 2.)"""

import math
from dataclasses import dataclass

import torch

from turnwise.errors import InputError


@dataclass(frozen=True)
class Mismatch:
    """How far the engine's log-probs (`behavior`) are from the trainer's on the same sampled tokens, in nats.

    `mean_abs`, `max_abs`: of the difference per token. `kl`: KL(behavior || trainer), by the estimator
    exp(d) - 1 - d with d = trainer - behavior (never negative). `entropy`: the mean entropy of the trainer's
    distributions. `surprise`: the mean of (-log p(token) - entropy), and `surprise_z` the same in standard errors.

    The last two catch what equal log-probs hide: tokens drawn from the reported distribution surprise it by its entropy
    on average, while truncated (top-k, top-p, min-p) or cooled sampling surprises it less, even when the engine
    reports the untouched log-probs. They mean this only over episodes that were not picked by their outcome.

    >>> logprob_mismatch(torch.tensor([-1.0, -2.0]), torch.tensor([-1.0, -2.5]), torch.tensor([1.5, 1.5])).mean_abs
    0.25
    """

    tokens: int
    mean_abs: float
    max_abs: float
    kl: float
    entropy: float
    surprise: float
    surprise_z: float


def logprob_mismatch(
    logprobs_N: torch.Tensor, behavior_logprobs_N: torch.Tensor, entropies_N: torch.Tensor
) -> Mismatch:
    """Compare the trainer's log-probs of N sampled tokens with the engine's; `entropies_N` are the trainer's.

    Raises InputError when there is no token to compare.
    """
    if logprobs_N.numel() == 0:
        raise InputError("there is no sampled token to compare the engine's and the trainer's log-probs on")
    logprobs, entropies = logprobs_N.double(), entropies_N.double()
    difference = logprobs - behavior_logprobs_N.double()
    # Given what came before, each token's surprise minus entropy has mean 0: a martingale, whose variance is the sum
    # of its squares whatever the tokens' dependence.
    surprise = -logprobs - entropies
    deviation = math.sqrt(float(surprise.square().sum()))
    return Mismatch(
        tokens=logprobs.numel(),
        mean_abs=float(difference.abs().mean()),
        max_abs=float(difference.abs().max()),
        kl=float((difference.exp() - 1 - difference).mean()),
        entropy=float(entropies.mean()),
        surprise=float(surprise.mean()),
        surprise_z=float(surprise.sum()) / deviation if deviation else 0.0,
    )
