"""Side by side: results in order, and nothing that outlives an error."""

import asyncio

import pytest

from turnwise.together import together


async def test_results_come_in_the_order_of_the_work():
    assert await together(asyncio.sleep(delay_s, delay_s) for delay_s in (0.02, 0.0, 0.01)) == [0.02, 0.0, 0.01]
    assert await together([]) == []


async def test_the_error_is_the_one_that_was_raised_and_the_others_have_ended():
    ended = []

    async def long():
        try:
            await asyncio.sleep(60)
        finally:
            ended.append("long")

    async def failing():
        await asyncio.sleep(0)
        raise KeyError("key")

    with pytest.raises(KeyError, match="key"):
        await together([long(), failing()])
    assert ended == ["long"]
