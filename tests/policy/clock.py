"""A clock that stands still until a test moves it, for what a policy waits for."""

import asyncio


class ManualClock:
    """`asked` are the delays that were slept for, in their order, but for those that are over at once.

    With `jumps` each sleep moves the clock by itself; else its sleepers wait until `move` is called.
    """

    def __init__(self, jumps: bool = False) -> None:
        self.asked: list[float] = []
        self._jumps = jumps
        self._now_s = 1000.0
        self._sleepers: list[tuple[float, asyncio.Event]] = []
        self._more = asyncio.Event()

    def time(self) -> float:
        return self._now_s

    async def sleep(self, delay_s: float) -> None:
        if delay_s <= 0:
            return
        self.asked.append(delay_s)
        if self._jumps:
            self._now_s += delay_s
            return
        woken = asyncio.Event()
        self._sleepers.append((self._now_s + delay_s, woken))
        self._more.set()
        await woken.wait()

    async def wait_for_sleepers(self, count: int) -> None:
        """Until so many sleep at once."""
        while len(self._sleepers) < count:
            self._more.clear()
            await self._more.wait()

    def move(self, by_s: float) -> None:
        """Let time pass, and wake those whose delay is over."""
        self._now_s += by_s
        due = [woken for until_s, woken in self._sleepers if until_s <= self._now_s]
        self._sleepers = [sleeper for sleeper in self._sleepers if sleeper[0] > self._now_s]
        for woken in due:
            woken.set()
