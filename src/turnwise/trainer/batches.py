"""From trajectories to padded micro-batches that hold only what the loss needs."""

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from turnwise.algorithms import group_advantages, nonzero_advantages
from turnwise.errors import InputError
from turnwise.types import Group, Trajectory


@dataclass(frozen=True)
class Example:
    """One trajectory made ready: the tokens the model reads, and at which of them a token is scored.

    `input_ids_T` ends before the last scored token: what comes after it, and the padding on the right, can reach no
    scored position of a causal model. `positions_N` index the tokens scored, in the whole trajectory (never 0).
    """

    input_ids_T: NDArray[np.int64]
    positions_N: NDArray[np.int64]
    targets_N: NDArray[np.int64]
    behavior_N: NDArray[np.float32]
    advantage: float


@dataclass(frozen=True)
class MicroBatch:
    """Examples padded on the right to one rectangle, and the scored tokens of all of them, flat.

    `indices` are the examples' places in the list they came from. `select_N` index the flattened [B * T] hidden states
    whose next token is `targets_N`. No attention mask is needed: causal attention never looks right, at the padding.
    """

    indices: tuple[int, ...]
    input_ids_BT: torch.Tensor
    select_N: torch.Tensor
    targets_N: torch.Tensor
    behavior_N: torch.Tensor
    advantages_N: torch.Tensor


def credit(groups: Sequence[Group]) -> list[tuple[Trajectory, float]]:
    """Pair every trajectory with its advantage in its group, without those of advantage zero (PAPER.md, phase 2)."""
    pairs: list[tuple[Trajectory, float]] = []
    for group in groups:
        advantages_G = group_advantages([trajectory.reward for trajectory in group.trajectories])
        for index in nonzero_advantages(advantages_G).nonzero().flatten().tolist():
            pairs.append((group.trajectories[index], float(advantages_G[index])))
    return pairs


def imitated_mask(trajectory: Trajectory) -> NDArray[np.bool_]:
    """Return the action mask [T] without the turns that triggered a format error (PAPER.md, phase 1)."""
    mask_T = trajectory.action_mask_T.copy()
    for turn in trajectory.turns:
        if turn.format_error is not None:
            mask_T[turn.start : turn.stop] = False
    return mask_T


def make_example(
    trajectory: Trajectory, mask_T: NDArray[np.bool_], *, advantage: float = 0.0, max_tokens: int, vocabulary: int
) -> Example:
    """Check a trajectory against the model and reduce it to what the loss over `mask_T` needs.

    Raises InputError naming the episode when it does not fit: longer than `max_tokens` (the model's positions), token
    ids beyond the vocabulary, arrays of different lengths, a sampled first token, log-probs that are no numbers.
    """
    name, ids_T = f'trajectory "{trajectory.episode_id}"', trajectory.token_ids_T
    if not len(ids_T) == len(mask_T) == len(trajectory.behavior_logprobs_T):
        raise InputError(f"{name}: token ids, action mask and behavior log-probs differ in length")
    if len(ids_T) > max_tokens:
        raise InputError(
            f"{name} has {len(ids_T)} tokens, more than the model's {max_tokens} positions; "
            "lower the stage's context_tokens or take a model with a longer context"
        )
    if len(ids_T) and not 0 <= int(ids_T.min()) <= int(ids_T.max()) < vocabulary:
        raise InputError(f"{name} has token ids outside the model's vocabulary of {vocabulary}; another sampled it?")
    positions_N = np.flatnonzero(mask_T)
    if len(positions_N) and positions_N[0] == 0:
        raise InputError(f"{name} begins with a sampled token; its first token must be the prompt's")
    behavior_N = trajectory.behavior_logprobs_T[positions_N]
    if not np.isfinite(behavior_N).all():
        raise InputError(f"{name} has behavior log-probs that are not finite numbers")
    end = int(positions_N[-1]) if len(positions_N) else 0
    return Example(ids_T[:end], positions_N, ids_T[positions_N], behavior_N, advantage)


def split_evenly(count: int, batch_size: int) -> list[slice]:
    """Cut `count` items into the fewest batches of at most `batch_size`, as equal as can be: no tiny last step.

    >>> split_evenly(130, 128)
    [slice(0, 65, None), slice(65, 130, None)]
    """
    batches = math.ceil(count / batch_size)
    bounds = [index * count // batches for index in range(batches + 1)]
    return [slice(start, stop) for start, stop in itertools.pairwise(bounds)]


def micro_batches(examples: Sequence[Example], max_tokens: int, device: str = "cpu") -> Iterator[MicroBatch]:
    """Yield the examples in rectangles of at most `max_tokens` padded tokens, like lengths together, longest first.

    An example longer than `max_tokens` goes alone; one with nothing to score is left out.
    """
    scored = [index for index, example in enumerate(examples) if len(example.positions_N)]
    order = sorted(scored, key=lambda index: -len(examples[index].input_ids_T))
    while order:
        rows = max(1, max_tokens // len(examples[order[0]].input_ids_T))
        yield _pad(examples, tuple(order[:rows]), device)
        order = order[rows:]


def _pad(examples: Sequence[Example], indices: tuple[int, ...], device: str) -> MicroBatch:
    chosen = [examples[index] for index in indices]
    width = max(len(example.input_ids_T) for example in chosen)
    input_ids_BT = np.zeros((len(chosen), width), dtype=np.int64)
    for row, example in enumerate(chosen):
        input_ids_BT[row, : len(example.input_ids_T)] = example.input_ids_T
    select_N = np.concatenate([row * width + example.positions_N - 1 for row, example in enumerate(chosen)])
    advantages_N = np.concatenate(
        [np.full(len(example.positions_N), example.advantage, np.float32) for example in chosen]
    )
    arrays = (
        input_ids_BT,
        select_N,
        np.concatenate([example.targets_N for example in chosen]),
        np.concatenate([example.behavior_N for example in chosen]),
        advantages_N,
    )
    return MicroBatch(indices, *(torch.from_numpy(array).to(device) for array in arrays))
