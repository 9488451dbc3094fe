"""Literal values by hand: with one success in four, mean 1/4 and sample deviation 1/2."""

import pytest
import torch

from turnwise.algorithms import group_advantages, nonzero_advantages
from turnwise.errors import InputError


def test_one_success_in_four() -> None:
    advantages = group_advantages(torch.tensor([1.0, 0.0, 0.0, 0.0]), delta=0.0)
    torch.testing.assert_close(advantages, torch.tensor([1.5, -0.5, -0.5, -0.5]))


def test_delta_is_added_to_the_deviation() -> None:
    torch.testing.assert_close(group_advantages([1.0, 0.0, 0.0, 0.0], delta=0.5)[0], torch.tensor(0.75))


def test_penalties_take_part_in_mean_and_deviation() -> None:
    # mean 0, squares 1 + 0.25 + 0.25 = 1.5, over G - 1 = 2: deviation sqrt(0.75)
    expected = torch.tensor([1.0, -0.5, -0.5]) / 0.75**0.5
    torch.testing.assert_close(group_advantages([1.0, -0.5, -0.5], delta=0.0), expected)


@pytest.mark.parametrize("rewards", [[0.0] * 10, [1.0] * 10, [0.1] * 3, [-0.7] * 7, [1.0], []])
def test_a_group_that_tells_nothing_is_dropped_whole(rewards: list[float]) -> None:
    advantages = group_advantages(rewards)
    assert advantages.tolist() == [0.0] * len(rewards)
    assert not nonzero_advantages(advantages).any()


def test_only_zeros_are_dropped() -> None:
    assert nonzero_advantages(torch.tensor([1e-9, 0.0, -0.0, -2.0])).tolist() == [True, False, False, True]


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_reward_that_is_no_number_is_refused(bad: float) -> None:
    with pytest.raises(InputError, match="not a finite number"):
        group_advantages([1.0, bad])


def test_a_batch_of_groups_is_refused() -> None:
    with pytest.raises(InputError, match=r"shape \[G\]; got \(2, 3\)"):
        group_advantages(torch.zeros(2, 3))
