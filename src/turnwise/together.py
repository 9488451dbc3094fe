"""Coroutines that run side by side and end together (floor 0)."""

import asyncio
from collections.abc import Coroutine, Iterable
from typing import Any, TypeVar

T = TypeVar("T")


async def together(work: Iterable[Coroutine[Any, Any, T]]) -> list[T]:
    """What each gives, in their order. Where one raises, the others are cancelled and have ended before this raises
    that one's error: nothing goes on in what the caller takes down now, as it would with asyncio.gather.

    >>> asyncio.run(together(asyncio.sleep(0.01 * n, n) for n in (2, 1)))
    [2, 1]
    """
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(one) for one in work]
    except BaseExceptionGroup as errors:
        raise errors.exceptions[0] from None
    return [task.result() for task in tasks]
