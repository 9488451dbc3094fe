"""Runs a policy on held-out tasks, several times each, and sums up."""

from collections.abc import Callable, Sequence

from turnwise.evaluation.summary import Outcome, StageResult, summarize
from turnwise.rollout import Collector, EpisodeRequest
from turnwise.store import EpisodeKey, EpisodeSummary
from turnwise.types import Task, Trajectory

PURPOSE = "evaluate"


async def evaluate(
    collector: Collector,
    tasks: Sequence[Task],
    *,
    stage: str,
    runs: int,
    k: int,
    iteration: int = 0,
    progress: Callable[[Trajectory], None] | None = None,
) -> StageResult:
    """Roll out `runs` episodes of every task under the collector's policy and reduce them to one result.

    Episodes that the journal holds already are not run again. Those that the infrastructure failed for good are left
    out (see `summarize`). Raises InputError where none is left.
    """
    requests = evaluation_requests(tasks, stage, runs, iteration)
    trajectories = await collector.collect(requests, progress)
    return summarize(stage, [outcome_of(trajectory) for trajectory in trajectories], k, asked=len(requests))


def evaluation_requests(tasks: Sequence[Task], stage: str, runs: int, iteration: int) -> list[EpisodeRequest]:
    """Whole runs one after another, so that an evaluation cut short has finished runs to show."""
    return [
        EpisodeRequest(EpisodeKey(stage, PURPOSE, iteration, task.instance_id, run), task)
        for run in range(runs)
        for task in tasks
    ]


def outcome_of(trajectory: Trajectory) -> Outcome:
    """What the figures need of a verified trajectory; its run is the member in its episode id."""
    return Outcome(
        task_id=trajectory.task_id,
        run=EpisodeKey.parse(trajectory.episode_id).member,
        resolved=trajectory.resolved,
        stop_reason=trajectory.stop_reason,
        turns=len(trajectory.turns),
        format_errors=sum(turn.format_error is not None for turn in trajectory.turns),
        verdict=None if trajectory.verdict is None else trajectory.verdict.kind,
        rules=() if trajectory.verdict is None else trajectory.verdict.rules,
    )


def outcome_of_summary(episode: EpisodeSummary) -> Outcome:
    """The same of an episode as the journal sums it up."""
    return Outcome(
        task_id=episode.key.task_id,
        run=episode.key.member,
        resolved=episode.resolved,
        stop_reason=episode.stop_reason,
        turns=episode.turns,
        format_errors=episode.format_errors,
        verdict=episode.verdict,
        rules=episode.rules,
    )
