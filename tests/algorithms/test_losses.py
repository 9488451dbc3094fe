"""Values computed by hand: each ratio is chosen, its log is what the function gets."""

import math

import pytest
import torch

from turnwise.algorithms import dapo_loss, imitation_loss
from turnwise.errors import InputError


def logs(*ratios: float) -> torch.Tensor:
    return torch.tensor([math.log(ratio) for ratio in ratios])


def test_each_branch_of_the_clip() -> None:
    # (ratio, advantage) → min(r A, clip(r, 0.8, 1.3) A): (1.1, 2) → 2.2; (1.5, 2) → 2.6; (0.5, 2) → 1.0;
    # (0.5, -1) → -0.8; (1.5, -1) → -1.5; (0.9, -1) → -0.9. Sum 2.6, over six tokens.
    ratios, advantages = logs(1.1, 1.5, 0.5, 0.5, 1.5, 0.9), torch.tensor([2.0, 2.0, 2.0, -1.0, -1.0, -1.0])
    found = dapo_loss(ratios, torch.zeros(6), advantages, torch.ones(6), clip_low=0.2, clip_high=0.3)
    torch.testing.assert_close(found.loss, torch.tensor(-2.6 / 6))
    assert (int(found.clipped_low), int(found.clipped_high), int(found.tokens)) == (1, 1, 6)
    torch.testing.assert_close(found.ratio_sum, torch.tensor(6.0))
    torch.testing.assert_close(found.ratio_max, torch.tensor(1.5))


def test_clipped_tokens_give_no_gradient() -> None:
    logprobs = logs(1.5, 0.5, 1.5, 0.5).requires_grad_()
    advantages = torch.tensor([1.0, 1.0, -1.0, -1.0])
    dapo_loss(logprobs, torch.zeros(4), advantages, torch.ones(4), clip_low=0.2, clip_high=0.3).loss.backward()
    torch.testing.assert_close(logprobs.grad, torch.tensor([0.0, -0.5 / 4, 1.5 / 4, 0.0]))


def test_on_policy_gradient_is_the_advantage() -> None:
    logprobs = torch.full((2, 2), -1.0, requires_grad=True)
    dapo_loss(logprobs, logprobs.detach(), torch.tensor([3.0, -1.0]), torch.ones(2, 2)).loss.backward()
    torch.testing.assert_close(logprobs.grad, torch.tensor([[-0.75, -0.75], [0.25, 0.25]]))


def test_the_mean_is_over_tokens_not_over_rows() -> None:
    # One row of one token with A = 1, one of three with A = -1: (1 - 3) / 4, and not (1 - 1) / 2.
    mask = torch.tensor([[1, 0, 0], [1, 1, 1]])
    found = dapo_loss(torch.zeros(2, 3), torch.zeros(2, 3), torch.tensor([1.0, -1.0]), mask)
    torch.testing.assert_close(found.loss, torch.tensor(0.5))


@pytest.mark.parametrize("garbage", [float("nan"), float("inf"), -float("inf"), 500.0])
def test_what_the_mask_leaves_out_has_no_effect(garbage: float) -> None:
    logprobs = torch.tensor([[-1.0, garbage]], requires_grad=True)
    found = dapo_loss(logprobs, torch.tensor([[-1.0, 0.0]]), torch.tensor([1.0]), torch.tensor([[True, False]]))
    found.loss.backward()
    assert found.loss.item() == -1.0
    assert logprobs.grad is not None
    assert logprobs.grad.tolist() == [[-1.0, 0.0]]


@pytest.mark.parametrize("sizes", [[6], [1, 5], [2, 2, 2], [3, 1, 2], [1] * 6])
def test_any_split_gives_the_same_loss_and_gradient(sizes: list[int]) -> None:
    generator = torch.Generator().manual_seed(1)
    logprobs = torch.randn(6, 8, generator=generator).sub(2).requires_grad_()
    behavior = logprobs.detach() + 0.3 * torch.randn(6, 8, generator=generator)
    mask = torch.rand(6, 8, generator=generator) < torch.linspace(0.1, 0.9, 6).unsqueeze(1)
    advantages = torch.randn(6, generator=generator)
    whole = dapo_loss(logprobs, behavior, advantages, mask)
    (expected,) = torch.autograd.grad(whole.loss, logprobs)
    total, loss = int(mask.sum()), 0.0
    for part in torch.split(torch.arange(6), sizes):
        found = dapo_loss(logprobs[part], behavior[part], advantages[part], mask[part], total_tokens=total)
        found.loss.backward()
        loss += found.loss.item()
    torch.testing.assert_close(logprobs.grad, expected)
    assert loss == pytest.approx(whole.loss.item(), abs=1e-6)


def test_no_action_token_is_an_error() -> None:
    with pytest.raises(InputError, match="no action token"):
        dapo_loss(torch.zeros(1, 2), torch.zeros(1, 2), torch.ones(1), torch.zeros(1, 2))


def test_shapes_that_do_not_fit_are_refused() -> None:
    with pytest.raises(InputError, match=r"\(2, 3\), \(2, 3\), \(2, 2\)"):
        dapo_loss(torch.zeros(2, 3), torch.zeros(2, 3), torch.ones(2), torch.ones(2, 2))
    with pytest.raises(InputError, match=r"advantages of shape \(3,\)"):
        dapo_loss(torch.zeros(2, 3), torch.zeros(2, 3), torch.ones(3), torch.ones(2, 3))


def test_imitation_is_the_mean_negative_log_likelihood() -> None:
    logprobs = torch.tensor([[-1.0, -3.0], [-5.0, float("nan")]], requires_grad=True)
    loss = imitation_loss(logprobs, torch.tensor([[True, True], [True, False]]), total_tokens=6)
    loss.backward()
    torch.testing.assert_close(loss, torch.tensor(1.5))
    torch.testing.assert_close(logprobs.grad, torch.tensor([[-1 / 6, -1 / 6], [-1 / 6, 0.0]]))


def test_imitating_nothing_is_an_error() -> None:
    with pytest.raises(InputError, match="no token to imitate"):
        imitation_loss(torch.zeros(2), torch.zeros(2))
