"""What a person sees while a run goes on: a live line on a terminal, plain lines elsewhere."""

import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

from rich.console import Console
from rich.live import Live
from rich.text import Text

from turnwise.evaluation import unusual_verdicts
from turnwise.types import Trajectory

PLAIN_EVERY_S = 20.0


@dataclass
class Tally:
    """Counts of one phase: how many of its episodes ended, what came of them, and how fast.

    >>> Tally("rl-1 3/8", total=240, done=120, resolved=30).line(elapsed_s=60.0)
    'rl-1 3/8: 120/240 episodes, 30 resolved (25%), 0 tokens/s, 1:00 to go'
    """

    title: str
    total: int
    done: int = 0
    resumed: int = 0  # already in the journal when the phase began
    resolved: int = 0
    sampled_tokens: int = 0
    unit: str = "episodes"  # what is counted; only episodes sample tokens
    failures: Mapping[str, int] = field(default_factory=dict)  # of the infrastructure, by cause, in this phase
    verdicts: Counter[str] = field(default_factory=Counter)  # by kind
    tripwires: Counter[str] = field(default_factory=Counter)  # by rule

    def add(self, trajectory: Trajectory, resumed: bool) -> None:
        """Count one finished episode; one that was resumed whole cost nothing now."""
        self.done += 1
        self.resumed += resumed
        self.resolved += trajectory.resolved
        if trajectory.verdict is not None:
            self.verdicts[trajectory.verdict.kind] += 1
            self.tripwires.update(trajectory.verdict.rules)
        self.sampled_tokens += 0 if resumed else sum(turn.sampled_tokens for turn in trajectory.turns)

    def line(self, elapsed_s: float) -> str:
        """The one line that says it all; the time to go assumes that the rest goes as fast as what was done now."""
        fresh, left = self.done - self.resumed, self.total - self.done
        share = f"{self.resolved / self.done:.0%}" if self.done else "-"
        parts = [
            f"{self.done}/{self.total} {self.unit}",
            f"{self.resolved} resolved ({share})",
        ]
        parts += filter(None, [unusual_verdicts(self.verdicts, self.tripwires)])
        if self.unit == "episodes":
            parts.append(f"{self.sampled_tokens / max(elapsed_s, 1e-9):,.0f} tokens/s")
        parts += [f"{count} {cause}" for cause, count in sorted(self.failures.items()) if count]
        if fresh and left > 0:
            minutes, seconds = divmod(round(left * elapsed_s / fresh), 60)
            parts.append(f"{minutes}:{seconds:02d} to go")
        return f"{self.title}: " + ", ".join(parts)


class Progress:
    """Shows phases and lines on a rich console; knows nothing about what the phases do."""

    def __init__(self, console: Console, clock: Callable[[], float] = time.monotonic) -> None:
        self._console = console
        self._clock = clock

    def say(self, text: str) -> None:
        """One plain line that stays."""
        self._console.print(text, highlight=False, markup=False, soft_wrap=True)

    @contextmanager
    def phase(self, title: str, total: int, unit: str = "episodes") -> Iterator["Phase"]:
        """Episodes of one kind, or what else `unit` names; its last line stays when the phase ends, however it ends."""
        phase = Phase(Tally(title, total, unit=unit), self._clock, None if self._console.is_terminal else self.say)
        if not self._console.is_terminal:
            yield phase
            self.say(phase.line())
            return
        with Live(get_renderable=lambda: Text(phase.line()), console=self._console, refresh_per_second=2):
            yield phase


class Phase:
    """One running phase. Feed it finished episodes."""

    def __init__(self, tally: Tally, clock: Callable[[], float], plain: Callable[[str], None] | None) -> None:
        self.tally = tally
        self._clock = clock
        self._plain = plain
        self._began = self._spoke = clock()

    def line(self) -> str:
        """The tally as of now."""
        return self.tally.line(self._clock() - self._began)

    def episode(self, trajectory: Trajectory, resumed: bool, failures: Mapping[str, int]) -> None:
        """An episode ended, with its verdict; `failures` are the phase's so far, retried ones included."""
        self.tally.add(trajectory, resumed)
        self.tally.failures = failures
        now = self._clock()
        if self._plain is not None and now - self._spoke >= PLAIN_EVERY_S:
            self._spoke = now
            self._plain(self.line())
