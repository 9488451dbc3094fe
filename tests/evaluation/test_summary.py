from math import sqrt

import pytest

from turnwise.errors import InputError
from turnwise.evaluation import Outcome, summarize, unusual_verdicts
from turnwise.types import StopReason


def outcome(task, run, resolved, *, stop=StopReason.SUBMITTED, turns=4, format_errors=0, verdict=None, rules=()):
    return Outcome(task, run, resolved, stop, turns, format_errors, verdict, rules)


def test_figures_by_hand():
    outcomes = [
        outcome("a", 0, True, turns=3),
        outcome("b", 0, False, turns=5, format_errors=2),
        outcome("a", 1, True, turns=4),
        outcome("b", 1, True, turns=4),
        outcome("a", 2, False, stop=StopReason.TURN_LIMIT, turns=8, format_errors=4),
        outcome("b", 2, False, stop=StopReason.CONTEXT_LIMIT, turns=6),
    ]
    result = summarize("rl-1", outcomes, k=2)
    assert result.name == "rl-1"
    assert result.pass_at_1 == pytest.approx(0.5)  # runs: 0.5, 1.0, 0.0
    assert result.sem == pytest.approx(0.5 / sqrt(3))
    assert result.pass_at_k == pytest.approx((1.0 + 2 / 3) / 2)  # a: 2 of 3; b: 1 of 3
    assert (result.k, result.runs, result.tasks) == (2, 3, 2)
    assert result.submit_rate == pytest.approx(4 / 6)
    assert result.mean_turns == pytest.approx(5.0)
    assert result.format_error_rate == pytest.approx(6 / 30)


def test_infrastructure_failures_move_nothing():
    clean = [outcome(task, run, task == "a") for task in "ab" for run in range(3)]
    broken = [outcome("c", run, False, stop=stop) for run, stop in enumerate(StopReason) if stop.is_infrastructure]
    assert len(broken) == 4
    scored = summarize("base", clean + broken, k=3)
    assert scored.verdicts == {"infrastructure_failure": 4}
    assert scored == summarize("base", clean, k=3, asked=10)
    assert scored.scored_of_asked == "6 of 10"


def test_verdicts_are_counted_by_kind_and_suspected_ones_by_tripwire():
    suspected = [("suspected", ("frames",)), ("suspected", ("frames", "interpreter"))]
    given = [("unresolved", ()), ("resolved", ()), ("tampering", ()), *suspected, ("resolved_loosely", ())]
    outcomes = [outcome("a", run, False, verdict=kind, rules=rules) for run, (kind, rules) in enumerate(given)]
    outcomes += [outcome("a", 6, False, stop=StopReason.SANDBOX_FAILURE), outcome("a", 7, False)]
    result = summarize("base", outcomes, k=1)
    assert list(result.verdicts.items()) == [
        *[("resolved", 1), ("resolved_loosely", 1), ("suspected", 2), ("unresolved", 1)],
        *[("infrastructure_failure", 1), ("tampering", 1)],
    ]
    assert list(result.tripwires.items()) == [("frames", 2), ("interpreter", 1)]
    assert unusual_verdicts(result.verdicts, result.tripwires) == (
        "1 resolved loosely, 2 suspected (frames 2, interpreter 1), 1 infrastructure failure, 1 tampering"
    )


def test_nothing_is_said_of_ordinary_verdicts():
    assert unusual_verdicts({"resolved": 3, "unresolved": 2, "empty_patch": 1}, {}) == ""


def test_a_task_short_of_k_attempts_is_left_out_of_pass_at_k_only():
    outcomes = [outcome("a", run, run == 0) for run in range(3)]
    outcomes += [outcome("b", 0, True), outcome("b", 1, False, stop=StopReason.SANDBOX_FAILURE)]
    result = summarize("base", outcomes, k=3)
    assert (result.pass_at_k, result.k, result.tasks) == (1.0, 3, 2)
    assert result.pass_at_1 == pytest.approx((1.0 + 0.0 + 0.0) / 3)


def test_k_falls_to_the_attempts_there_are():
    result = summarize("base", [outcome("a", 0, False), outcome("a", 1, True)], k=10)
    assert (result.k, result.pass_at_k) == (2, 1.0)


def test_one_run_has_no_standard_error():
    assert summarize("base", [outcome("a", 0, True)], k=1).sem is None


def test_an_episode_without_turns_is_counted():
    result = summarize("base", [outcome("a", 0, False, stop=StopReason.CONTEXT_LIMIT, turns=0)], k=1)
    assert (result.mean_turns, result.format_error_rate) == (0.0, 0.0)


@pytest.mark.parametrize("outcomes", [[], [outcome("a", 0, False, stop=StopReason.POLICY_FAILURE)]])
def test_nothing_to_summarize_is_an_error(outcomes):
    with pytest.raises(InputError, match="no finished episode"):
        summarize("base", outcomes, k=1)
