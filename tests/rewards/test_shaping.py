"""The reward's components, against values worked out by hand from PAPER.md."""

import pytest

from turnwise.errors import InputError
from turnwise.rewards import length_penalty, reward_components


@pytest.mark.parametrize(
    ("turns", "threshold", "max_turns", "penalty"),
    [(1, 10, 40, 0.0), (10, 10, 40, 0.0), (13, 10, 40, -0.1), (40, 10, 40, -1.0), (45, 10, 80, -0.5), (4, 0, 8, -0.5)],
)
def test_length_penalty(turns, threshold, max_turns, penalty):
    assert length_penalty(turns, threshold, max_turns) == pytest.approx(penalty)


@pytest.mark.parametrize(("threshold", "max_turns"), [(40, 40), (41, 40), (-1, 40)])
def test_a_threshold_out_of_range_is_refused(threshold, max_turns):
    with pytest.raises(InputError, match="threshold"):
        length_penalty(5, threshold, max_turns)


def test_components_add_up_to_the_papers_reward():
    paid = reward_components(resolved=True, turns=25, threshold=10, max_turns=40)

    assert paid == {"resolved": 1.0, "length": -0.5}
    assert reward_components(resolved=False, turns=25, threshold=None, max_turns=40) == {"resolved": 0.0}
