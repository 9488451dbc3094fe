from dataclasses import replace

import pytest

from turnwise.report.episodes import view_episode
from turnwise.report.read import read_run
from turnwise.types import Verdict, VerdictKind
from turnwise.usage import Usage


@pytest.fixture
def paid(finished_run):
    """A resolved training episode: 20 opening tokens, 6 sampled, 4 read, 4 sampled."""
    samples = read_run(finished_run[0]).samples
    return next(s for s in samples if s.key.purpose == "train" and s.trajectory.resolved)


def test_the_ribbon_holds_every_token_once_in_order(paid):
    ribbon = [(segment.sampled, segment.tokens) for segment in view_episode(paid).ribbon]
    assert ribbon == [(False, 20), (True, 6), (False, 4), (True, 4)]
    assert sum(segment.percent for segment in view_episode(paid).ribbon) == pytest.approx(100)


def test_turns_know_what_their_tokens_cost_the_policy(paid):
    turns = view_episode(paid).turns
    assert [(turn.tokens, turn.mean_logprob) for turn in turns] == [(6, -0.5), (4, -0.5)]


def test_an_endpoints_tokens_are_its_own_count_and_the_ribbon_is_of_bytes(paid):
    turns = tuple(replace(turn, usage=Usage(90, 0, 33)) for turn in paid.trajectory.turns)
    view = view_episode(replace(paid, trajectory=replace(paid.trajectory, turns=turns)))
    assert [(turn.tokens, turn.mean_logprob) for turn in view.turns] == [(33, None), (33, None)]
    assert view.unit == "bytes"
    assert view.ribbon[1].label == "turn 1: 6 sampled bytes"


def test_the_payment_is_told_against_the_group(paid):
    known = replace(paid, sibling_rewards={0: 1.0, 1: 0.0, 2: 0.0, 3: 0.0})
    payment = view_episode(known).payment
    assert payment.group_mean == pytest.approx(0.25)
    assert payment.above_mean == pytest.approx(known.trajectory.reward - 0.25)
    assert "1 of 1 failing tests now pass, 1 of 1 others still do" in payment.reason
    assert view_episode(replace(paid, sibling_rewards={})).payment.group_mean is None


def test_every_kind_of_verdict_has_its_words(paid):
    for kind in VerdictKind:
        trajectory = replace(paid.trajectory, verdict=Verdict(kind))
        assert len(view_episode(replace(paid, trajectory=trajectory)).payment.reason) > 20


def test_diff_lines_are_told_apart(paid):
    kinds = [line.kind for line in view_episode(paid).diff]
    assert kinds[:6] == ["place", "place", "place", "place", "removed", "added"]
