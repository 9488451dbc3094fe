import pytest
import torch

from turnwise.algorithms import logprob_mismatch
from turnwise.errors import InputError


def test_literal_values() -> None:
    found = logprob_mismatch(
        torch.tensor([-1.0, -2.0, -0.5, -1.5]), torch.tensor([-1.0, -2.5, -0.5, -1.0]), torch.full((4,), 1.0)
    )
    assert (found.tokens, found.mean_abs, found.max_abs) == (4, 0.25, 0.5)
    # exp(0.5) - 1.5 = 0.148721 and exp(-0.5) - 0.5 = 0.106531, over four tokens
    assert found.kl == pytest.approx((0.148721 + 0.106531) / 4, abs=1e-6)
    # surprise minus entropy: 0, 1, -0.5, 0.5; sum 1, squares 1.5
    assert found.surprise == pytest.approx(0.25)
    assert found.surprise_z == pytest.approx(1 / 1.5**0.5)
    assert found.entropy == 1.0


def surprise_of(draw_from: torch.Tensor, reported: torch.Tensor) -> float:
    tokens = torch.multinomial(draw_from, 4000, replacement=True, generator=torch.Generator().manual_seed(0))
    logprobs = reported.log()[tokens]
    entropies = torch.full((4000,), float(-(reported * reported.log()).sum()))
    found = logprob_mismatch(logprobs, logprobs, entropies)
    assert found.mean_abs == 0.0
    return found.surprise_z


def test_truncated_sampling_shows_where_equal_logprobs_hide_it() -> None:
    reported = torch.softmax(torch.linspace(0, 3, 20), 0)
    top_k = torch.where(reported >= reported[-10], reported, 0.0)
    assert abs(surprise_of(reported, reported)) < 3
    assert surprise_of(top_k, reported) < -6


def test_nothing_to_compare_is_an_error() -> None:
    with pytest.raises(InputError, match="no sampled token"):
        logprob_mismatch(torch.zeros(0), torch.zeros(0), torch.zeros(0))
