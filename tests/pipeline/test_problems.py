"""Which problems stay in the pool after a refresh, and which of them an iteration takes."""

import pytest

from turnwise.pipeline.problems import Rates, choose, fixed_subset, refreshed
from turnwise.pipeline.recipe import Refresh
from turnwise.types import SourceDistribution, Task

PACKAGE = SourceDistribution("p", "1", "0" * 64)


def pool(*names: str) -> list[Task]:
    return [Task(name, "p", "c", "", "", "", ("t",), (), PACKAGE) for name in names]


def ids(tasks: list[Task]) -> list[str]:
    return [task.instance_id for task in tasks]


def rates(**counts: tuple[int, int]) -> Rates:
    return Rates({name: tried for name, (_, tried) in counts.items()}, {name: won for name, (won, _) in counts.items()})


@pytest.mark.parametrize(
    ("solved", "tried", "stays"), [(0, 30, False), (1, 30, True), (20, 30, True), (21, 30, False), (30, 30, False)]
)
def test_over_two_thirds_and_never_solved_go(solved: int, tried: int, stays: bool) -> None:
    left = refreshed(pool("a"), Refresh(), rates(a=(solved, tried)), rates(a=(1, 2)))
    assert ids(left) == (["a"] if stays else [])


def test_never_solved_stay_when_asked_to() -> None:
    assert ids(refreshed(pool("a"), Refresh(drop_never_solved=False), rates(a=(0, 9)), rates())) == ["a"]


def test_undrawn_tasks_are_judged_by_the_collection_for_ease_only() -> None:
    collected = rates(easy=(3, 3), fair=(1, 3), hard=(0, 3))
    assert ids(refreshed(pool("easy", "fair", "hard", "unseen"), Refresh(), rates(), collected)) == [
        "fair",
        "hard",
        "unseen",
    ]


def test_rates_count_episodes() -> None:
    counted = Rates.count([("a", True), ("a", False), ("b", False)])
    assert (counted.tried, counted.solved) == ({"a": 2, "b": 1}, {"a": 1, "b": 0})


def test_a_pass_over_the_pool_repeats_nothing_and_the_next_is_shuffled_anew() -> None:
    tasks = pool(*(f"t{i}" for i in range(10)))
    drawn = [name for i in range(1, 7) for name in ids(choose(tasks, 3, seed=1, stage="rl-1", iteration=i))]
    first, second = drawn[:9], drawn[9:]
    assert len(set(first)) == len(set(second)) == 9
    assert first != second


def test_choice_depends_on_seed_and_stage_and_not_on_the_order_of_the_file() -> None:
    tasks = pool(*(f"t{i}" for i in range(40)))
    drawn = ids(choose(tasks, 8, seed=1, stage="rl-1", iteration=2))
    assert drawn == ids(choose(tasks[::-1], 8, seed=1, stage="rl-1", iteration=2))
    assert drawn != ids(choose(tasks, 8, seed=2, stage="rl-1", iteration=2))
    assert drawn != ids(choose(tasks, 8, seed=1, stage="rl-2", iteration=2))


def test_a_small_pool_is_taken_whole() -> None:
    assert sorted(ids(choose(pool("a", "b"), 5, seed=0, stage="s", iteration=3))) == ["a", "b"]


def test_the_evaluated_subset_is_fixed() -> None:
    tasks = pool(*(f"t{i}" for i in range(20)))
    chosen = ids(fixed_subset(tasks, 5))
    assert chosen == ids(fixed_subset(tasks[::-1], 5))
    assert set(chosen) <= set(ids(fixed_subset(tasks, 6)))
    assert len(fixed_subset(tasks, None)) == 20
