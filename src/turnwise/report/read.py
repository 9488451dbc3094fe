"""From a run's journal to what the report shows. Reads only; a run that goes on meanwhile is not disturbed."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain, zip_longest
from pathlib import Path

from turnwise.errors import StoreError
from turnwise.evaluation import (
    Outcome,
    StageResult,
    count_verdicts,
    outcome_of_summary,
    summarize,
    total_usage,
    uncounted_turns,
)
from turnwise.report.record import CurvePoint, Episode, RunRecord, StageSpan, Verdicts
from turnwise.store import EpisodeKey, EpisodeSummary, Journal

RUN = "run"  # under this name the journal's states hold what is true of the whole run: its name, seed and wall_s
SAMPLES = 3  # rewarded, as many scored without reward and as many unresolved episodes of each stage and purpose


def read_run(run_dir: Path) -> RunRecord:
    """Everything the report shows of the run in `run_dir`. Raises InputError where there is no journal."""
    with Journal.read(run_dir / "journal.sqlite") as journal:
        episodes = journal.episodes()
        spans = _spans(episodes)
        evaluations = _evaluations(journal, spans)
        usage, prices = total_usage(episodes), journal.prices()
        return RunRecord(
            name=journal.state(RUN, "name") or run_dir.resolve().name,
            seed=journal.state(RUN, "seed"),
            stages=tuple({point.stage: point.result for point in evaluations}.values()),
            spans=spans,
            evaluations=evaluations,
            training=_training(episodes, spans, k=evaluations[-1].result.k if evaluations else 1),
            updates=tuple(journal.updates()),
            infra_failures=journal.failures_by_cause(),
            samples=tuple(_samples(journal, episodes)),
            wall_s=journal.state(RUN, "wall_s") or 0.0,
            episodes=len(episodes),
            verdicts=tuple(Verdicts(*place, count_verdicts(room)) for place, room in _rooms(episodes).items()),
            incomplete_patches=sum(each.left_out > 0 for each in episodes),
            usage=usage,
            cost_usd=None if usage is None or prices is None else prices.cost_usd(usage),
            uncounted_turns=uncounted_turns(episodes),
        )


def _spans(episodes: Sequence[EpisodeSummary]) -> tuple[StageSpan, ...]:
    """The stages that train, end to end: an RL stage is as long as it has iterations, fine-tuning is one."""
    iterations: dict[str, set[int]] = defaultdict(set)
    for episode in episodes:
        if episode.key.purpose != "evaluate":
            iterations[episode.key.stage].add(episode.key.iteration)
    spans, start = [], 0
    for stage, seen in iterations.items():
        spans.append(StageSpan(stage, start, start + len(seen)))
        start += len(seen)
    return tuple(spans)


def _evaluations(journal: Journal, spans: Iterable[StageSpan]) -> tuple[CurvePoint, ...]:
    """Evaluations where they stand on the x axis: after as many iterations of their stage as their number says.

    The base model's stands at 0; that of a stage that found nothing to train on, where the stage before it ended.
    """
    by_name = {span.name: span for span in spans}
    points: list[CurvePoint] = []
    for evaluation in journal.evaluations():
        span, reached = by_name.get(evaluation.stage), points[-1].x if points else 0
        x = min(span.start + evaluation.iteration, span.stop) if span else reached
        points.append(CurvePoint(x, evaluation.stage, StageResult(**evaluation.figures)))
    return tuple(points)


def _training(episodes: Iterable[EpisodeSummary], spans: Iterable[StageSpan], k: int) -> tuple[CurvePoint, ...]:
    """The figures of each iteration's own episodes, sampled before its update, as if they were an evaluation."""
    start = {span.name: span.start for span in spans}
    iterations: dict[tuple[str, int], list[Outcome]] = defaultdict(list)
    for episode in episodes:
        if episode.key.purpose != "evaluate":
            iterations[episode.key.stage, episode.key.iteration].append(outcome_of_summary(episode))
    points, done = [], dict(start)
    for (stage, _), outcomes in sorted(iterations.items(), key=lambda item: (start[item[0][0]], item[0][1])):
        if any(not outcome.stop_reason.is_infrastructure for outcome in outcomes):
            points.append(CurvePoint(done[stage], stage, summarize(stage, outcomes, k)))
        done[stage] += 1
    return tuple(points)


def _samples(journal: Journal, episodes: Sequence[EpisodeSummary]) -> Iterator[Episode]:
    for room in _rooms(episodes).values():
        for chosen in _choose(room):
            yield _load(journal, chosen.key, room)


def _rooms(episodes: Iterable[EpisodeSummary]) -> dict[tuple[str, str], list[EpisodeSummary]]:
    """The episodes of each stage and purpose."""
    rooms: dict[tuple[str, str], list[EpisodeSummary]] = defaultdict(list)
    for episode in episodes:
        rooms[episode.key.stage, episode.key.purpose].append(episode)
    return rooms


def _choose(room: Sequence[EpisodeSummary]) -> list[EpisodeSummary]:
    """Some rewarded, merely scored and unresolved ones, the newest of each first: other tasks, other ends."""
    ended = [episode for episode in reversed(room) if not episode.stop_reason.is_infrastructure]
    rewarded = [episode for episode in ended if episode.rewarded]
    scored = [episode for episode in ended if episode.resolved and not episode.rewarded]
    unresolved = [episode for episode in ended if not episode.resolved]
    return [
        *_varied(rewarded, lambda episode: episode.key.task_id),
        *_varied(scored, lambda episode: f"{episode.verdict} {episode.rules}"),
        *_varied(unresolved, lambda episode: f"{episode.stop_reason} {episode.verdict}"),
    ]


def _varied(episodes: Iterable[EpisodeSummary], kind: Callable[[EpisodeSummary], str]) -> list[EpisodeSummary]:
    """At most SAMPLES of them: one of every kind, then a second one of every kind, and so on."""
    kinds: dict[str, list[EpisodeSummary]] = defaultdict(list)
    for episode in episodes:
        kinds[kind(episode)].append(episode)
    rounds = chain.from_iterable(zip_longest(*kinds.values()))
    return [episode for episode in rounds if episode is not None][:SAMPLES]


def _load(journal: Journal, key: EpisodeKey, room: Iterable[EpisodeSummary]) -> Episode:
    stored = journal.episode(key)
    if stored is None:
        raise StoreError(f"{journal.path}: episode {key} is listed but not there")
    return Episode(
        key, stored.messages, stored.trajectory(), _group_rewards(key, room) if key.purpose == "train" else {}
    )


def _group_rewards(key: EpisodeKey, room: Iterable[EpisodeSummary]) -> dict[int, float]:
    """What every member of the episode's group was paid; those that the infrastructure failed are no members."""
    return {
        other.key.member: sum(other.rewards.values())
        for other in sorted(room, key=lambda other: other.key.member)
        if (other.key.iteration, other.key.task_id) == (key.iteration, key.task_id)
        and not other.stop_reason.is_infrastructure
    }
