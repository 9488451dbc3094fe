"""Unbiased estimators over repeated attempts."""

from math import comb

from turnwise.errors import InputError


def pass_at_k(n: int, c: int, k: int) -> float:
    """Chance that at least one of `k` attempts drawn from `n`, of which `c` succeeded, is a success.

    The unbiased estimator 1 - C(n-c, k) / C(n, k) of Chen et al. 2021 (arXiv:2107.03374, eq. 1), in exact integers up
    to the last division. Raises InputError unless 0 <= c <= n and 1 <= k <= n.

    >>> pass_at_k(n=10, c=1, k=5)
    0.5
    """
    if not 0 <= c <= n:
        raise InputError(f"pass_at_k: c must lie between 0 and n = {n}, got {c}")
    if not 1 <= k <= n:
        raise InputError(f"pass_at_k: k must lie between 1 and n = {n}, got {k}; run more attempts or lower k")
    return 1.0 - comb(n - c, k) / comb(n, k)
