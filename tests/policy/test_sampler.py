import numpy as np
import pytest
import torch

from turnwise.errors import PolicyError
from turnwise.policy.sampler import draw, logprobs, uniforms


def test_a_uniform_number_picks_the_token_of_its_slice_of_the_distribution():
    logits_BV = torch.log(torch.tensor([[0.5, 0.25, 0.0, 0.25]])).repeat(6, 1)
    assert draw(logits_BV, [0.0, 0.49, 0.51, 0.74, 0.76, 1.0]) == [0, 0, 1, 1, 3, 3]


def test_a_token_of_probability_zero_is_never_drawn():
    logits_BV = torch.tensor([[-torch.inf, 0.0, -torch.inf]]).repeat(2, 1)
    assert draw(logits_BV, [0.0, 1.0]) == [1, 1]


def test_frequencies_follow_the_distribution():
    probabilities = torch.tensor([0.6, 0.3, 0.09, 0.01])
    noise = uniforms(seed=1, count=20_000)
    tokens = draw(torch.log(probabilities).repeat(len(noise), 1), noise.tolist())
    np.testing.assert_allclose(np.bincount(tokens) / len(tokens), probabilities, atol=0.01)


def test_noise_depends_on_the_seed_alone_and_longer_noise_goes_on():
    np.testing.assert_array_equal(uniforms(5, 10), uniforms(5, 20)[:10])
    assert not np.array_equal(uniforms(5, 10), uniforms(6, 10))


def test_logprobs_are_of_the_whole_distribution():
    logits_BV = torch.log(torch.tensor([[0.5, 0.25, 0.25], [0.1, 0.2, 0.7]]))
    np.testing.assert_allclose(logprobs(logits_BV, [1, 2]), np.log([0.25, 0.7]), atol=1e-6)


def test_diverged_weights_are_an_error():
    with pytest.raises(PolicyError, match="not finite"):
        draw(torch.tensor([[0.0, torch.nan]]), [0.5])
