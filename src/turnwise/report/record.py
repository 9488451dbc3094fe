"""What the report knows about a run: plain values read from its journal, before anything is drawn."""

from collections.abc import Mapping
from dataclasses import dataclass

from turnwise.evaluation import StageResult, VerdictCounts
from turnwise.store import EpisodeKey, Update
from turnwise.types import Trajectory
from turnwise.usage import Usage


@dataclass(frozen=True)
class CurvePoint:
    """One policy's figures at `x`, the number of training iterations behind it over all stages.

    >>> base = StageResult("base", 0.1, 0.01, 0.3, 10, 10, 50, 0.5, 6.0, 0.2)
    >>> CurvePoint(x=0, stage="base", result=base).result.pass_at_1
    0.1
    """

    x: float
    stage: str
    result: StageResult


@dataclass(frozen=True)
class StageSpan:
    """Where a training stage lies on the x axis of the curves: iterations `start` to `stop`."""

    name: str
    start: float
    stop: float


@dataclass(frozen=True)
class Episode:
    """A finished episode: its (role, content) messages at the opening, and how it and its siblings were paid.

    `sibling_rewards` holds the reward of every member of its group by number, empty where it was not sampled in one.
    """

    key: EpisodeKey
    opening: tuple[tuple[str, str], ...]
    trajectory: Trajectory
    sibling_rewards: Mapping[int, float]


@dataclass(frozen=True)
class Verdicts:
    """The verdicts on the episodes of one stage and purpose ("collect", "train" or "evaluate")."""

    stage: str
    purpose: str
    counts: VerdictCounts


@dataclass(frozen=True)
class RunRecord:
    """Everything on the page.

    `stages` holds one result per stage, in the order the run passed them; `wall_s` is the time spent on the run so far
    by all the processes that worked on it, `episodes` how many ended. `usage` is what an endpoint counted for them and
    `cost_usd` its price, where there is one; lower bounds where it did not count `uncounted_turns` of their turns.
    `incomplete_patches` counts the episodes whose patch does not carry all of the agent's work.
    """

    name: str
    seed: int | None
    stages: tuple[StageResult, ...]
    spans: tuple[StageSpan, ...]
    evaluations: tuple[CurvePoint, ...]
    training: tuple[CurvePoint, ...]
    updates: tuple[Update, ...]
    infra_failures: Mapping[str, int]
    samples: tuple[Episode, ...]
    wall_s: float
    episodes: int
    verdicts: tuple[Verdicts, ...]
    incomplete_patches: int
    usage: Usage | None = None
    cost_usd: float | None = None
    uncounted_turns: int = 0
