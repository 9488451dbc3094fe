import random
from itertools import combinations
from statistics import fmean

import pytest

from turnwise.errors import InputError
from turnwise.evaluation import pass_at_k


@pytest.mark.parametrize(
    ("n", "c", "k", "expected"),
    [
        (1, 0, 1, 0.0),
        (1, 1, 1, 1.0),
        (4, 1, 1, 0.25),
        (4, 1, 2, 0.5),
        (4, 2, 2, 1 - 1 / 6),
        (10, 3, 5, 1 - 21 / 252),
        (10, 6, 5, 1.0),
        (10, 0, 10, 0.0),
        (10, 1, 10, 1.0),
    ],
)
def test_literal_values(n, c, k, expected):
    assert pass_at_k(n, c, k) == pytest.approx(expected, abs=1e-15)


def test_equals_the_mean_over_every_subset():
    attempts = [True, False, False, True, False, False, False]
    for k in range(1, len(attempts) + 1):
        by_hand = fmean(any(chosen) for chosen in combinations(attempts, k))
        assert pass_at_k(len(attempts), sum(attempts), k) == pytest.approx(by_hand, abs=1e-15)


def test_is_unbiased_for_the_true_chance():
    """Its mean over draws of n attempts is 1 - (1-p)^k, which the naive 1 - (1 - c/n)^k misses."""
    generator = random.Random(3)
    n, k, p = 6, 4, 0.25
    draws = [sum(generator.random() < p for _ in range(n)) for _ in range(40_000)]
    truth = 1 - (1 - p) ** k
    assert fmean(pass_at_k(n, c, k) for c in draws) == pytest.approx(truth, abs=0.005)
    assert fmean(1 - (1 - c / n) ** k for c in draws) < truth - 0.03


def test_survives_numbers_that_overflow_a_float_product():
    assert pass_at_k(n=5000, c=1, k=2500) == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("n", "c", "k", "named"), [(4, 5, 1, "c must"), (4, -1, 1, "c must"), (4, 2, 5, "k must"), (4, 2, 0, "k must")]
)
def test_impossible_counts_are_refused_by_name(n, c, k, named):
    with pytest.raises(InputError, match=named):
        pass_at_k(n, c, k)
