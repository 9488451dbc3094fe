"""Evaluations side by side: figures by hand, and what cannot be compared."""

from dataclasses import asdict
from math import sqrt

import pytest

from turnwise.errors import InputError
from turnwise.evaluation import check_same_tasks, paired_difference, read_score, summarize
from turnwise.evaluation.evaluate import outcome_of_summary
from turnwise.store import EpisodeKey, Journal
from turnwise.types import StopReason, Verdict, VerdictKind


def make_run(folder, results, stage="base", failed=()):
    """A finished evaluation: `results` has each task's outcomes, one a run."""
    with Journal.open(folder / "journal.sqlite", "r") as journal:
        for task, outcomes in results.items():
            for run, resolved in enumerate(outcomes):
                key = EpisodeKey(stage, "evaluate", 0, task, run)
                patch = "good" if resolved else "bad"
                lost = (task, run) in failed
                journal.start_episode(key, ())
                journal.finish_episode(key, StopReason.POLICY_FAILURE if lost else StopReason.SUBMITTED, patch)
                kind = VerdictKind.RESOLVED if resolved else VerdictKind.UNRESOLVED
                journal.record_verdict(task, patch, Verdict(kind))
        outcomes = [outcome_of_summary(each) for each in journal.episodes(stage)]
        journal.record_evaluation(stage, 0, asdict(summarize(stage, outcomes, k=2)))
    return str(folder)


@pytest.fixture
def runs(tmp_path):
    one = make_run(tmp_path / "one", {"a": [True, True], "b": [True, False], "c": [False, False]})
    other = make_run(tmp_path / "other", {"a": [True, False], "b": [False, False], "c": [False, False]})
    return read_score(one), read_score(other)


def test_figures(runs):
    one, other = runs
    assert (one.result.pass_at_1, one.result.runs, one.result.k) == (pytest.approx(0.5), 2, 2)
    assert (one.resolved, one.attempts, other.resolved) == (3, 6, 1)
    assert one.rates == {"a": 1.0, "b": 0.5, "c": 0.0}
    assert (one.usage, one.cost_usd) == (None, None)
    check_same_tasks(runs)


def test_the_paired_difference_by_hand(runs):
    difference = paired_difference(*runs)  # 0.5, 0.5, 0
    assert difference.mean == pytest.approx(1 / 3)
    assert difference.sem == pytest.approx(sqrt(((1 / 6) ** 2 * 2 + (1 / 3) ** 2) / 2) / sqrt(3))
    assert difference.tasks == 3
    assert paired_difference(runs[1], runs[0]).mean == pytest.approx(-1 / 3)


def test_what_the_infrastructure_failed_is_in_no_rate_but_in_the_task_set(tmp_path, runs):
    third = make_run(
        tmp_path / "third", {"a": [True, True], "b": [True, True], "c": [True, True]}, failed=[("c", 0), ("c", 1)]
    )
    score = read_score(third)
    check_same_tasks([runs[0], score])
    assert score.rates == {"a": 1.0, "b": 1.0}
    assert score.attempts == 4
    assert paired_difference(score, runs[0]).tasks == 2


def test_different_tasks_are_refused_by_name(tmp_path, runs):
    odd = make_run(tmp_path / "odd", {"a": [True, True], "z": [True, True]})
    with pytest.raises(InputError) as refused:
        check_same_tasks([*runs, read_score(odd)])
    assert f"only in {runs[1].name}: b, c" in str(refused.value)
    assert f"only in {odd}: z" in str(refused.value)


def test_a_stage_is_chosen_by_name_and_a_missing_one_told(tmp_path):
    folder = make_run(tmp_path / "run", {"a": [False, False]})
    make_run(tmp_path / "run", {"a": [True, True]}, stage="rl-1")
    assert read_score(folder).result.pass_at_1 == 1.0
    assert read_score(f"{folder}:base").result.pass_at_1 == 0.0
    with pytest.raises(InputError, match="no finished evaluation of 'rl-9'; there is base, rl-1"):
        read_score(f"{folder}:rl-9")
    with pytest.raises(InputError, match="no run here"):
        read_score(str(tmp_path / "nowhere"))
