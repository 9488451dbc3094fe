"""Which problems a stage trains on, and which of them each iteration takes (PAPER.md sec 4.3)."""

import hashlib
import random
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from turnwise.pipeline.recipe import Refresh
from turnwise.types import Task


@dataclass(frozen=True)
class Rates:
    """How often each task was tried and solved.

    >>> Rates.count([("a", True), ("a", False), ("b", False)]).solved
    {'a': 1, 'b': 0}
    """

    tried: Mapping[str, int]
    solved: Mapping[str, int]

    @staticmethod
    def count(outcomes: Iterable[tuple[str, bool]]) -> "Rates":
        """From (task id, resolved) pairs, one per episode."""
        listed = list(outcomes)
        tried = Counter(task_id for task_id, _ in listed)
        wins = Counter(task_id for task_id, resolved in listed if resolved)
        return Rates(dict(tried), {task_id: wins[task_id] for task_id in tried})


def refreshed(pool: Sequence[Task], refresh: Refresh, reinforced: Rates, collected: Rates) -> list[Task]:
    """The tasks that stay: solved at least once (if asked), at most `max_success` of the time, in the RL stage before.

    A task that the RL stage before never drew is judged by the first collection, and only for being too easy: a
    weaker policy's failures do not say that the present one cannot solve it.
    """
    return [task for task in pool if _stays(task.instance_id, refresh, reinforced, collected)]


def _stays(task_id: str, refresh: Refresh, reinforced: Rates, collected: Rates) -> bool:
    drawn = task_id in reinforced.tried
    rates = reinforced if drawn else collected
    if task_id not in rates.tried:
        return True
    solved, tried = rates.solved[task_id], rates.tried[task_id]
    if solved == 0:
        return not (drawn and refresh.drop_never_solved)
    return solved / tried <= refresh.max_success


def choose(pool: Sequence[Task], count: int, seed: int, stage: str, iteration: int) -> list[Task]:
    """The problems of an iteration (from 1): slices of a shuffled pool, reshuffled when a pass is used up.

    A pure function of its arguments, so that a resumed run takes the same problems. The pool's remainder that does not
    fill an iteration is left out of that pass; a pool smaller than `count` is taken whole.
    """
    count = min(count, len(pool))
    passes, place = divmod(iteration - 1, len(pool) // count)
    shuffled = sorted(pool, key=lambda task: task.instance_id)
    random.Random(f"{seed}/{stage}/{passes}").shuffle(shuffled)
    return shuffled[place * count : (place + 1) * count]


def fixed_subset(tasks: Sequence[Task], count: int | None) -> list[Task]:
    """`count` of the tasks, the same ones for every seed and order of the file: those whose id hashes lowest."""
    ranked = sorted(tasks, key=lambda task: hashlib.sha256(task.instance_id.encode()).hexdigest())
    return sorted(ranked[:count], key=lambda task: task.instance_id)
