"""What evaluation episodes say about one policy: Pass@1 with its standard error, Pass@k and how the episodes went."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from math import sqrt
from statistics import fmean, stdev

from turnwise.errors import InputError
from turnwise.evaluation.estimators import pass_at_k
from turnwise.evaluation.verdicts import count_verdicts
from turnwise.types import StopReason


@dataclass(frozen=True)
class Outcome:
    """One evaluation episode, as far as the figures need it. `run` numbers the repeats of the whole task set from 0.

    >>> Outcome("toolz__toolz-3", 0, True, StopReason.SUBMITTED, turns=4, format_errors=1).resolved
    True
    """

    task_id: str
    run: int
    resolved: bool
    stop_reason: StopReason
    turns: int
    format_errors: int
    verdict: str | None = None
    rules: tuple[str, ...] = ()  # the tripwires of a suspected patch


@dataclass(frozen=True)
class StageResult:
    """The figures of one policy on one task set.

    `pass_at_1` is the mean over runs of each run's share of resolved tasks; `sem` is its standard error over runs
    (sample deviation / sqrt(runs)), None where a single run leaves it undefined. `submit_rate` is the share of episodes
    ended by `submit`, `format_error_rate` the share of turns that were format errors. The figures are of `scored`
    episodes of the `asked`: the infrastructure ended the others. `verdicts` counts all episodes by kind of verdict,
    `tripwires` the suspected ones by rule; both are empty in records that do not say.

    >>> StageResult("base", 0.114, 0.0024, 0.31, k=10, runs=10, tasks=500, submit_rate=0.6, mean_turns=23.0,
    ...             format_error_rate=0.05).k
    10
    """

    name: str
    pass_at_1: float
    sem: float | None
    pass_at_k: float
    k: int
    runs: int
    tasks: int
    submit_rate: float
    mean_turns: float
    format_error_rate: float
    scored: int | None = None
    asked: int | None = None
    verdicts: Mapping[str, int] = field(default_factory=dict)
    tripwires: Mapping[str, int] = field(default_factory=dict)

    @property
    def scored_of_asked(self) -> str:
        """How many episodes the figures are of, of those asked for; "-" in records that do not say."""
        return "-" if self.scored is None else f"{self.scored} of {self.asked}"


def summarize(name: str, outcomes: Iterable[Outcome], k: int, asked: int | None = None) -> StageResult:
    """Reduce episodes to a `StageResult`.

    Episodes that the infrastructure ended say nothing about the policy and are left out: a run's Pass@1 is over the
    tasks that ended in it, a task's Pass@k over its attempts that ended. A task with fewer than k such attempts is left
    out of Pass@k; where no task has k of them, k becomes the most that any task has, and the result says so in its `k`.
    `asked` is how many episodes were asked for, where `outcomes` lacks some. Raises InputError where no episode is
    left, or k < 1.
    """
    if k < 1:
        raise InputError(f"summarize: k must be at least 1, got {k}")
    given = list(outcomes)
    ended = [outcome for outcome in given if not outcome.stop_reason.is_infrastructure]
    if not ended:
        raise InputError(f"evaluation {name!r} has no finished episode; the table of infrastructure failures says why")
    run_scores = [fmean(outcome.resolved for outcome in run) for run in _by_run(ended)]
    attempts = _attempts_by_task(ended)
    reached_k = min(k, max(len(attempt) for attempt in attempts))
    turns = sum(outcome.turns for outcome in ended)
    wanted = len(given) if asked is None else asked
    counts = count_verdicts(given, lost=wanted - len(given))
    return StageResult(
        name=name,
        pass_at_1=fmean(run_scores),
        sem=stdev(run_scores) / sqrt(len(run_scores)) if len(run_scores) > 1 else None,
        pass_at_k=fmean(pass_at_k(len(a), sum(a), reached_k) for a in attempts if len(a) >= reached_k),
        k=reached_k,
        runs=len(run_scores),
        tasks=len(attempts),
        submit_rate=fmean(outcome.stop_reason is StopReason.SUBMITTED for outcome in ended),
        mean_turns=turns / len(ended),
        format_error_rate=sum(outcome.format_errors for outcome in ended) / turns if turns else 0.0,
        scored=len(ended),
        asked=wanted,
        verdicts=counts.verdicts,
        tripwires=counts.tripwires,
    )


def _by_run(outcomes: Sequence[Outcome]) -> list[list[Outcome]]:
    runs: dict[int, list[Outcome]] = defaultdict(list)
    for outcome in outcomes:
        runs[outcome.run].append(outcome)
    return list(runs.values())


def _attempts_by_task(outcomes: Sequence[Outcome]) -> list[list[bool]]:
    """Per task, whether each of its attempts resolved it."""
    tasks: dict[str, list[bool]] = defaultdict(list)
    for outcome in outcomes:
        tasks[outcome.task_id].append(outcome.resolved)
    return list(tasks.values())
