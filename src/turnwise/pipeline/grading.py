"""Grades predictions that somebody else made: an evaluation whose episodes have all submitted already.

What is done is read from the journal alone, so the same command goes on where a kill left it. A patch that was graded
before is not graded again; what the infrastructure failed is.
"""

import asyncio
import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from rich.console import Console

from turnwise.errors import InfrastructureError
from turnwise.evaluation import (
    Graded,
    Matched,
    Prediction,
    failed_for_good,
    outcome_of_summary,
    summarize,
    write_grades,
)
from turnwise.pipeline.context import RUN
from turnwise.pipeline.progress import Phase, Progress
from turnwise.pipeline.recipe import SandboxTable
from turnwise.pipeline.workshop import open_backend, open_environments, open_verification
from turnwise.rewards import require_graders
from turnwise.rollout import Environments, Verifier
from turnwise.sandbox import SandboxBackend
from turnwise.store import EpisodeKey, Journal, StoredEpisode
from turnwise.together import together
from turnwise.types import StopReason, Task

STAGE = "predictions"
_AS_CAN_CHANGE = {"verifications", "retries"}


def grade_predictions(
    matched: Matched,
    tasks: Sequence[Task],
    folder: Path,
    *,
    run_id: str,
    sandbox: SandboxTable,
    console: Console,
    repos: Path | None = None,
    environments: Environments | None = None,
) -> Path:
    """Grade the matched predictions in fresh sandboxes and write swebench's files into `folder` (`write_grades`).

    `repos` holds clones of the tasks' repositories. Returns the summary's path. Raises InputError where the folder
    holds grades of other tasks or limits, or what grades a task is not installed; StoreError where another process is
    at it; InfrastructureError where not one prediction could be graded.
    """
    require_graders([task for task, _ in matched.pairs])
    journal_path = folder / "journal.sqlite"
    with Journal.open(journal_path, _settings_hash(tasks, sandbox)) as journal, asyncio.Runner() as runner:
        journal.set_state(RUN, "name", run_id)
        _enter(journal, matched)
        backend, made = open_backend(sandbox), open_environments(sandbox, repos, environments)
        try:
            runner.run(_grade_all(matched, journal, backend, made, sandbox, Progress(console)))
        finally:
            made.stop()
            runner.run(backend.close())
        return _write(journal, matched, tasks, folder, run_id)


def model_name(predictions: Sequence[Prediction]) -> str:
    """The one model that all predictions name; "mixed" where they differ and "unnamed" where they say nothing."""
    names = {prediction.model_name_or_path for prediction in predictions} - {None}
    return next(iter(names), "unnamed") or "unnamed" if len(names) < 2 else "mixed"


def _key(task: Task) -> EpisodeKey:
    return EpisodeKey(STAGE, "evaluate", 0, task.instance_id, 0)


def _enter(journal: Journal, matched: Matched) -> None:
    """Bring the journal to these predictions: what has another patch now, or failed, begins anew."""
    wanted = {_key(task): prediction.patch for task, prediction in matched.pairs}
    for key in journal.keys(STAGE):
        held = journal.episode(key)
        if held is not None and (held.patch != wanted.get(key) or held.stop_reason is not StopReason.SUBMITTED):
            journal.forget([key])
    for key, patch in wanted.items():
        if journal.episode(key) is None:
            journal.start_episode(key, ())
            journal.finish_episode(key, StopReason.SUBMITTED, patch)


async def _grade_all(
    matched: Matched,
    journal: Journal,
    backend: SandboxBackend,
    environments: Environments,
    sandbox: SandboxTable,
    progress: Progress,
) -> None:
    verifier = Verifier(
        open_verification(backend, sandbox),
        environments,
        journal,
        retries=sandbox.retries,
        at_once=sandbox.verifications,
    )
    before = journal.failures_by_cause()
    with progress.phase("verify", len(matched.pairs), unit="patches") as phase:
        await together(_grade(task, journal, verifier, phase, before) for task, _ in matched.pairs)


async def _grade(task: Task, journal: Journal, verifier: Verifier, phase: Phase, before: dict[str, int]) -> None:
    key = _key(task)
    episode = _stored(journal, key)
    resumed = episode.rewards is not None
    if not resumed:
        verdict = await verifier.verdict(task, episode.trajectory())
        if isinstance(verdict, StopReason):
            journal.finish_episode(key, verdict, episode.patch)
        else:
            journal.record_rewards(key, {"resolved": float(verdict.rewarded)})
    failed = {cause: count - before.get(cause, 0) for cause, count in journal.failures_by_cause().items()}
    phase.episode(_stored(journal, key).trajectory(), resumed, failed)


def _write(journal: Journal, matched: Matched, tasks: Sequence[Task], folder: Path, run_id: str) -> Path:
    failures = failed_for_good(journal)
    graded = [Graded.of(_stored(journal, _key(task)), failures) for task, _ in matched.pairs]
    name = model_name([prediction for _, prediction in matched.pairs])
    summary = write_grades(folder, graded, [task.instance_id for task in tasks], model_name=name, run_id=run_id)
    outcomes = [outcome_of_summary(episode) for episode in journal.episodes(STAGE)]
    if all(outcome.stop_reason.is_infrastructure for outcome in outcomes):
        counts = Counter(failure.cause for failure in failures.values())
        causes = ", ".join(f"{count} {cause}" for cause, count in counts.items())
        last = journal.failures()[-1].detail
        raise InfrastructureError(
            f"none of {len(outcomes)} predictions could be graded ({causes}); the last one: {last}"
        )
    journal.record_evaluation(STAGE, 0, asdict(summarize(STAGE, outcomes, k=1)))
    return summary


def _stored(journal: Journal, key: EpisodeKey) -> StoredEpisode:
    episode = journal.episode(key)
    assert episode is not None, f"{key} was entered"
    return episode


def _settings_hash(tasks: Sequence[Task], sandbox: SandboxTable) -> str:
    """What the verdicts depend on beside the patches."""
    ordered = sorted(tasks, key=lambda task: task.instance_id)
    said = repr((ordered, sorted(sandbox.model_dump(exclude=_AS_CAN_CHANGE).items())))
    return hashlib.sha256(said.encode()).hexdigest()[:16]
