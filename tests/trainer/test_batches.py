from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from turnwise.errors import InputError
from turnwise.trainer import credit
from turnwise.trainer.batches import Example, imitated_mask, make_example, micro_batches, split_evenly
from turnwise.types import FormatError, Group, StopReason, Trajectory

MakeTrajectory = Callable[..., Trajectory]


def make_example_of(length: int, scored: int = 2) -> Example:
    positions = np.arange(length - scored + 1, length + 1)
    return Example(np.arange(length), positions, positions * 10, -positions.astype(np.float32), advantage=float(length))


def test_rectangles_hold_like_lengths_within_the_budget() -> None:
    examples = [make_example_of(length) for length in (3, 20, 5, 8, 4)]
    batches = list(micro_batches(examples, max_tokens=16))
    assert [batch.indices for batch in batches] == [(1,), (3, 2), (4, 0)]  # 20 alone, then 8 + 5 and 4 + 3
    assert all(batch.input_ids_BT.numel() <= 16 for batch in batches[1:])


def test_every_scored_token_is_predicted_from_the_one_before() -> None:
    (batch,) = micro_batches([make_example_of(3), make_example_of(5)], max_tokens=100)
    assert batch.indices == (1, 0)
    assert batch.input_ids_BT.tolist() == [[0, 1, 2, 3, 4], [0, 1, 2, 0, 0]]
    assert batch.select_N.tolist() == [3, 4, 5 + 1, 5 + 2]
    assert batch.targets_N.tolist() == [40, 50, 20, 30]
    assert batch.behavior_N.tolist() == [-4, -5, -2, -3]
    assert batch.advantages_N.tolist() == [5, 5, 3, 3]


def test_an_example_without_scored_tokens_is_left_out() -> None:
    empty = np.zeros(0, np.int64)
    nothing = Example(empty, empty, empty, empty.astype(np.float32), 1.0)
    assert [batch.indices for batch in micro_batches([nothing, make_example_of(3)], 100)] == [(1,)]


def test_batches_are_as_equal_as_can_be() -> None:
    sizes = [piece.stop - piece.start for piece in split_evenly(1000, 128)]
    assert sizes == [125] * 8
    assert [piece.stop - piece.start for piece in split_evenly(7, 3)] == [2, 2, 3]


def test_credit_drops_groups_that_tell_nothing() -> None:
    def member(reward: float) -> Trajectory:
        empty = np.zeros(0)
        return Trajectory("e", "t", empty, empty, empty, (), StopReason.SUBMITTED, rewards={"final": reward})

    groups = [
        Group("a", (member(1.0), member(1.0))),
        Group("b", (member(1.0), member(0.0))),
        Group("c", (member(1.0),)),
    ]
    pairs = credit(groups)
    assert [trajectory for trajectory, _ in pairs] == list(groups[1].trajectories)
    assert [advantage for _, advantage in pairs] == pytest.approx([0.5**0.5, -(0.5**0.5)], abs=1e-5)


def test_format_error_turns_are_not_imitated(sample: MakeTrajectory) -> None:
    trajectory = sample(0, first=6, second=9, error=FormatError.NO_COMMAND)
    assert np.flatnonzero(imitated_mask(trajectory)).tolist() == list(range(15, 24))
    assert trajectory.action_mask_T.sum() == 15  # the trajectory itself is as it was


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"token_ids_T": np.zeros(97, np.int64)}, "differ in length"),
        ({"token_ids_T": np.full(24, 67)}, "outside the model's vocabulary of 67"),
        ({"token_ids_T": np.full(24, -1)}, "outside the model's vocabulary"),
        ({"behavior_logprobs_T": np.full(24, np.nan, np.float32)}, "not finite"),
        ({"action_mask_T": np.ones(24, np.bool_)}, "begins with a sampled token"),
    ],
)
def test_a_trajectory_that_does_not_fit_is_named(
    sample: MakeTrajectory, change: dict[str, object], reason: str
) -> None:
    trajectory = replace(sample(3), **change)
    with pytest.raises(InputError, match=rf'trajectory "test/3".*{reason}'):
        make_example(trajectory, trajectory.action_mask_T, max_tokens=96, vocabulary=67)


def test_a_trajectory_longer_than_the_model_is_refused(sample: MakeTrajectory) -> None:
    with pytest.raises(InputError, match=r'"test/1" has 24 tokens, more than the model\'s 23 positions'):
        make_example(sample(1), sample(1).action_mask_T, max_tokens=23, vocabulary=67)
