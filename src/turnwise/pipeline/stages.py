"""The two kinds of stage, each from where it stands to its end: rejection fine-tuning and synchronous RL."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

from turnwise.agent import opening_messages
from turnwise.pipeline.checkpoints import Metrics
from turnwise.pipeline.context import Run, probe
from turnwise.pipeline.imitation import kept_in_order, with_opening
from turnwise.pipeline.problems import choose
from turnwise.pipeline.recipe import RftStage, RlStage
from turnwise.pipeline.workshop import agent_config, open_trainer
from turnwise.rollout import EpisodeRequest, groups
from turnwise.store import EpisodeKey
from turnwise.types import Task, Trajectory

if TYPE_CHECKING:
    from turnwise.trainer import StepMetrics, Trainer

RFT_ITERATION = 1  # fine-tuning is one iteration


def fine_tune(run: Run, stage: RftStage) -> int:
    """Phase 1 (PAPER.md sec 4.2): collect with the present policy, keep what is resolved, imitate it for one epoch.

    Where nothing is resolved the weights stay as they are, and the run says so. Returns the stage's last iteration.
    """
    done = run.resume(stage)
    if done is None:
        collector = run.shop.collector(stage, stage.demonstration)
        requests = [
            EpisodeRequest(EpisodeKey(stage.name, "collect", RFT_ITERATION, task.instance_id, member), task)
            for task in run.shop.train_tasks
            for member in range(stage.runs)
        ]
        trajectories = run.collect(f"{stage.name}: collecting", collector, requests)
        kept = kept_in_order(trajectories, run.recipe.run.seed)
        trainer = open_trainer(run.recipe, stage, run.weights, resume=None)
        steps = _imitate(run, stage, trainer, trajectories, kept)
        done = run.finish_iteration(stage, RFT_ITERATION, trainer, steps)
    run.weights = str(done.path)
    return RFT_ITERATION


def _imitate(
    run: Run, stage: RftStage, trainer: "Trainer", sampled: Sequence[Trajectory], kept: Sequence[Trajectory]
) -> list[Metrics]:
    mismatch = trainer.check_mismatch(probe(sampled))
    if not kept:
        run.progress.say(f"{stage.name}: none of {len(sampled)} episodes is resolved, so there is nothing to imitate")
        return []
    run.progress.say(f"{stage.name}: training on {len(kept)} resolved of {len(sampled)} episodes")
    steps = trainer.fine_tune(_as_trained(run, stage, kept))
    return _metrics(steps, mismatch.mean_abs)


def _as_trained(run: Run, stage: RftStage, kept: Sequence[Trajectory]) -> list[Trajectory]:
    """What was collected with the demonstration is learnt without it, as the trained model will be asked."""
    if not stage.demonstration:
        return list(kept)
    config = agent_config(run.recipe, stage)
    kept_ids = {trajectory.task_id for trajectory in kept}
    tasks = [task for task in run.shop.train_tasks if task.instance_id in kept_ids]
    workdirs = run.workdirs(tasks)
    openings = {
        task.instance_id: run.shop.renderer.opening(opening_messages(task, config, workdirs[task.instance_id]))
        for task in tasks
    }
    return [with_opening(trajectory, openings[trajectory.task_id]) for trajectory in kept]


def reinforce(run: Run, stage: RlStage) -> int:
    """Phase 2 (PAPER.md sec 4.3): iterations of problems → groups → advantages → optimizer steps → new weights.

    A stage whose pool is empty trains nothing, and the run says so. Returns the stage's last iteration.
    """
    pool = run.pool(stage)
    if not pool:
        run.progress.say(f"{stage.name}: the refresh leaves no problem, so there is nothing to train on")
        return 0
    run.progress.say(f"{stage.name}: {len(pool)} of {len(run.shop.train_tasks)} problems")
    done, trainer = run.resume(stage), None
    begun = done.iteration if done else 0
    for iteration in range(begun, stage.iterations + 1):
        if iteration > begun:
            trainer = trainer or open_trainer(run.recipe, stage, run.weights, done.path if done else None)
            done = run.finish_iteration(stage, iteration, trainer, _iterate(run, stage, pool, iteration, trainer))
        if iteration > 0:
            run.evaluate_curve(stage, iteration)
    run.weights = str(done.path) if done else run.weights
    return stage.iterations


def _iterate(run: Run, stage: RlStage, pool: Sequence[Task], iteration: int, trainer: "Trainer") -> list[Metrics]:
    """Roll out, verify, train: appendix D's synchronous iteration. No usable group, no step."""
    problems = choose(pool, stage.problems_per_iteration, run.recipe.run.seed, stage.name, iteration)
    requests = [
        EpisodeRequest(EpisodeKey(stage.name, "train", iteration, task.instance_id, member), task)
        for task in problems
        for member in range(stage.group_size)
    ]
    title = f"{stage.name} {iteration}/{stage.iterations}"
    trajectories = run.collect(title, run.shop.collector(stage), requests)
    mismatch = trainer.check_mismatch(probe(trajectories))
    steps = trainer.reinforce(groups(trajectories))
    if not steps:
        run.progress.say(f"{title}: every group agrees with itself, so no advantage differs from zero; no step taken")
    return _metrics(steps, mismatch.mean_abs)


def _metrics(steps: Sequence["StepMetrics"], mismatch: float) -> list[Metrics]:
    """The steps' metrics as the journal keeps them; the engine's mismatch was measured before the first."""
    rows = [{name: value for name, value in asdict(step).items() if value is not None} for step in steps]
    return [row | {"mismatch_mean_abs": mismatch} if index == 0 else row for index, row in enumerate(rows)]
