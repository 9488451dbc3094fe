"""What rejection fine-tuning trains on (PAPER.md sec 4.2)."""

import random
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from turnwise.types import Trajectory


def kept_in_order(trajectories: Sequence[Trajectory], seed: int) -> list[Trajectory]:
    """The rewarded ones, shuffled: in the order of the collection a batch would hold few tasks of one package."""
    kept = [trajectory for trajectory in trajectories if trajectory.rewarded]
    random.Random(f"{seed}/kept").shuffle(kept)
    return kept


def with_opening(trajectory: Trajectory, opening_ids: Sequence[int]) -> Trajectory:
    """The same episode behind another opening: what was sampled with a demonstration is learnt without it.

    Every turn's span moves with its tokens.
    """
    first = trajectory.turns[0].start if trajectory.turns else len(trajectory.token_ids_T)
    shift = len(opening_ids) - first
    turns = tuple(replace(turn, start=turn.start + shift, stop=turn.stop + shift) for turn in trajectory.turns)
    return replace(
        trajectory,
        token_ids_T=np.concatenate([np.asarray(opening_ids, np.int64), trajectory.token_ids_T[first:]]),
        action_mask_T=np.concatenate([np.zeros(len(opening_ids), np.bool_), trajectory.action_mask_T[first:]]),
        behavior_logprobs_T=np.concatenate(
            [np.zeros(len(opening_ids), np.float32), trajectory.behavior_logprobs_T[first:]]
        ),
        turns=turns,
    )
