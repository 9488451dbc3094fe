"""Pure tensor functions of the method: group advantages, the DAPO and imitation losses, and what is measured on them.

No I/O, no configuration, no state. Axis suffixes: `_G` members of a group, `_B` rows, `_T` tokens.
"""

from turnwise.algorithms.advantages import group_advantages, nonzero_advantages
from turnwise.algorithms.losses import DapoLoss, dapo_loss, imitation_loss
from turnwise.algorithms.mismatch import Mismatch, logprob_mismatch

__all__ = [
    "DapoLoss",
    "Mismatch",
    "dapo_loss",
    "group_advantages",
    "imitation_loss",
    "logprob_mismatch",
    "nonzero_advantages",
]
