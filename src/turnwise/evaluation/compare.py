"""Several evaluations of one task set side by side, and how sure the difference of two of them is."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from math import sqrt
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from turnwise.errors import InputError
from turnwise.evaluation.evaluate import PURPOSE, outcome_of_summary
from turnwise.evaluation.summary import StageResult, summarize
from turnwise.store import EpisodeSummary, Evaluation, Journal
from turnwise.usage import Usage

NAMED = 5  # ids in a complaint


@dataclass(frozen=True)
class Score:
    """One evaluation. `rates` is the share of its ended attempts that resolved each task.

    `task_ids` are all that were attempted, whatever the infrastructure did with them; `resolved` of `attempts` ended
    episodes resolved their task. `tokens` is the mean number sampled in an episode; `usage` and `cost_usd` are totals,
    None where no endpoint counted and no prices are known, and lower bounds where `uncounted_turns` is not 0.
    """

    name: str
    result: StageResult
    task_ids: frozenset[str]
    rates: Mapping[str, float]
    resolved: int
    attempts: int
    tokens: float
    usage: Usage | None
    cost_usd: float | None
    uncounted_turns: int

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self) | {"task_ids": sorted(self.task_ids)}


@dataclass(frozen=True)
class PairedDifference:
    """How much more often the first of two evaluations resolves a task than the second, in the mean over tasks.

    `sem` is None for a single task.
    """

    mean: float
    sem: float | None
    tasks: int


def read_score(where: str) -> Score:
    """The last evaluation of a run folder; `FOLDER:STAGE` names another stage's. Raises InputError where there is none.

    Episodes that the infrastructure ended are out of every figure but the usage and the cost: they were paid for.
    """
    folder, stage = _place(where)
    with Journal.read(folder / "journal.sqlite") as journal:
        evaluation = _evaluation(journal, where, stage)
        episodes = journal.episodes(evaluation.stage, PURPOSE, evaluation.iteration)
        usage = total_usage(episodes)
        prices = journal.prices()
    ended = [each for each in episodes if not each.stop_reason.is_infrastructure]
    return Score(
        name=where,
        result=summarize(where, map(outcome_of_summary, episodes), k=int(evaluation.figures["k"])),
        task_ids=frozenset(each.key.task_id for each in episodes),
        rates=_rates(ended),
        resolved=sum(each.resolved for each in ended),
        attempts=len(ended),
        tokens=fmean(each.tokens for each in ended),
        usage=usage,
        cost_usd=None if usage is None or prices is None else prices.cost_usd(usage),
        uncounted_turns=uncounted_turns(episodes),
    )


def total_usage(episodes: Sequence[EpisodeSummary]) -> Usage | None:
    """What an endpoint counted over all episodes; None where none was asked or none counts.

    A lower bound of what they cost where there are `uncounted_turns`.
    """
    counted = [each.usage for each in episodes if each.usage is not None]
    return sum(counted, Usage()) if counted else None


def uncounted_turns(episodes: Sequence[EpisodeSummary]) -> int:
    """How many turns `total_usage` leaves out because the endpoint said no count; 0 where there is no total."""
    return 0 if total_usage(episodes) is None else sum(each.uncounted_turns for each in episodes)


def check_same_tasks(scores: Sequence[Score]) -> None:
    """Raises InputError, naming what differs, where two evaluations are not of the same tasks."""
    for one, other in pairwise(scores):
        missing, extra = one.task_ids - other.task_ids, other.task_ids - one.task_ids
        if missing or extra:
            parts = [
                f"only in {name}: {_listed(ids)}" for name, ids in ((one.name, missing), (other.name, extra)) if ids
            ]
            raise InputError(f"these evaluations are not of the same tasks; {'; '.join(parts)}")


def paired_difference(one: Score, other: Score) -> PairedDifference:
    """Over the tasks t that both have ended attempts at: d_t = p_one(t) - p_other(t), p the share that resolved t.

    The mean is the mean of d_t; its standard error is s / sqrt(T), with s the sample deviation of the T differences
    d_t. Tasks are paired, so that how hard they are does not widen it (Miller 2024, arXiv:2411.00640, sec. 4.2).
    Raises InputError where no task is common.
    """
    common = sorted(one.rates.keys() & other.rates.keys())
    if not common:
        raise InputError(f"{one.name} and {other.name} have no task in common that ended in both")
    differences = [one.rates[task] - other.rates[task] for task in common]
    sem = stdev(differences) / sqrt(len(common)) if len(common) > 1 else None
    return PairedDifference(fmean(differences), sem, len(common))


def _place(where: str) -> tuple[Path, str | None]:
    """A run folder, or one with the name of a stage behind a colon."""
    if Path(where).is_dir() or ":" not in where:
        return Path(where), None
    folder, _, stage = where.rpartition(":")
    return Path(folder), stage


def _evaluation(journal: Journal, where: str, stage: str | None) -> Evaluation:
    made = journal.evaluations()
    chosen = [each for each in made if stage in (None, each.stage)]
    if not chosen:
        known = ", ".join(dict.fromkeys(each.stage for each in made)) or "none yet"
        raise InputError(f"{where}: no finished evaluation{f' of {stage!r}' if stage else ''}; there is {known}")
    return chosen[-1]


def _rates(episodes: Sequence[EpisodeSummary]) -> dict[str, float]:
    attempts: defaultdict[str, list[bool]] = defaultdict(list)
    for each in episodes:
        attempts[each.key.task_id].append(each.resolved)
    return {task: fmean(resolved) for task, resolved in sorted(attempts.items())}


def _listed(ids: frozenset[str]) -> str:
    shown = ", ".join(sorted(ids)[:NAMED])
    return shown if len(ids) <= NAMED else f"{shown} and {len(ids) - NAMED} more"
