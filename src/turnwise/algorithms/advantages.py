"""Group-relative advantages (PAPER.md, phase 2)."""

from collections.abc import Sequence

import torch

from turnwise.errors import InputError


def group_advantages(rewards_G: Sequence[float] | torch.Tensor, *, delta: float = 1e-6) -> torch.Tensor:
    """Return (R - mean(R)) / (std(R) + delta) for the members of one group, as float32 of shape [G].

    `std` is the sample deviation (over G - 1), as in TRL and verl. The paper names delta without giving it: 1e-6 is
    verl's, TRL's is 1e-4. A group that cannot tell its members apart (all rewards equal, or a single member left after
    infrastructure failures) gets exact zeros, which `nonzero_advantages` then drops.

    Raises InputError when a reward is not finite or `rewards_G` has more than one axis.

    >>> group_advantages([1.0, 0.0, 0.0, 0.0], delta=0.0)
    tensor([ 1.5000, -0.5000, -0.5000, -0.5000])
    """
    rewards_G = torch.as_tensor(rewards_G, dtype=torch.float64)
    if rewards_G.dim() != 1:
        raise InputError(f"group_advantages takes the rewards of one group, shape [G]; got {tuple(rewards_G.shape)}")
    if not bool(torch.isfinite(rewards_G).all()):
        raise InputError(f"a reward of the group is not a finite number: {rewards_G.tolist()}")
    # Rounding makes mean([0.1] * 3) differ from 0.1; divided by delta that would be noise, so equality is asked first.
    if len(rewards_G) == 0 or bool((rewards_G == rewards_G[0]).all()):
        return torch.zeros(len(rewards_G), dtype=torch.float32)
    return ((rewards_G - rewards_G.mean()) / (rewards_G.std() + delta)).float()


def nonzero_advantages(advantages_B: torch.Tensor) -> torch.Tensor:
    """Return the mask [B] of the samples that train: those whose advantage is not zero (PAPER.md, phase 2).

    >>> nonzero_advantages(torch.tensor([1.5, 0.0, -0.5]))
    tensor([ True, False,  True])
    """
    return advantages_B != 0
