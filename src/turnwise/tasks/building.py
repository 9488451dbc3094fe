"""Many environments built side by side; one that fails does not stop the others."""

import asyncio
from collections.abc import Callable, Sequence

from turnwise.errors import TurnwiseError
from turnwise.tasks.checkout import Built
from turnwise.tasks.environment import EnvironmentStore
from turnwise.together import together
from turnwise.types import Task

Tell = Callable[[Task, Built | TurnwiseError], None]


async def build_all(store: EnvironmentStore, tasks: Sequence[Task], workers: int, tell: Tell) -> int:
    """Build the environments of `tasks`, `workers` at once, and tell each as it ends; how many failed.

    When this is cancelled, or `tell` raises, what is being built ends at once and leaves nothing.
    """
    turn = asyncio.Semaphore(workers)

    async def one(task: Task) -> bool:
        async with turn:
            try:
                outcome: Built | TurnwiseError = await store.build(task)
            except TurnwiseError as error:
                outcome = error
        tell(task, outcome)
        return isinstance(outcome, TurnwiseError)

    try:
        return sum(await together(one(task) for task in tasks))
    finally:
        store.stop()
