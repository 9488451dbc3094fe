"""What the stages of a run have in common: collecting episodes, evaluating, keeping checkpoints, serving weights."""

import asyncio
import time
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, TypeVar

from turnwise.evaluation import StageResult, evaluate, evaluation_requests, unusual_verdicts
from turnwise.pipeline.checkpoints import Checkpoint, Checkpoints, Metrics
from turnwise.pipeline.problems import Rates, fixed_subset, refreshed
from turnwise.pipeline.progress import Progress
from turnwise.pipeline.recipe import BASE, RftStage, RlStage
from turnwise.pipeline.workshop import Workshop, stored_weights
from turnwise.rollout import Collector, EpisodeRequest
from turnwise.types import Task, Trajectory

if TYPE_CHECKING:
    from turnwise.trainer import Trainer

RUN = "run"  # the name under which the journal keeps what is true of the whole run
PRICES = "prices"  # per million tokens, as the recipe last gave them
PROBE_TOKENS = 8_192  # of an iteration's first episodes: scored again to compare engine and trainer
Report = Callable[[Trajectory], None]
T = TypeVar("T")


class Run:
    """One run under way. `weights` is the checkpoint that the next stage starts from."""

    def __init__(self, shop: Workshop, checkpoints: Checkpoints, progress: Progress, runner: asyncio.Runner) -> None:
        self.recipe = shop.recipe
        self.shop = shop
        self.journal = shop.journal
        self.checkpoints = checkpoints
        self.progress = progress
        self.weights = self.recipe.weights
        self.heldout = fixed_subset(shop.heldout_tasks, self.recipe.evaluation.tasks)
        self._runner = runner
        self._clock = time.monotonic()
        self.journal.set_state(RUN, "name", self.recipe.run.name)
        self.journal.set_state(RUN, "seed", self.recipe.run.seed)
        chat = self.recipe.policy.chat
        self.journal.set_state(RUN, PRICES, asdict(chat.price.prices) if chat and chat.price else None)

    def beat(self) -> None:
        """Add the time since the last call to what the run has cost so far, over all its processes."""
        now = time.monotonic()
        spent = self.journal.state(RUN, "wall_s") or 0.0
        self.journal.set_state(RUN, "wall_s", spent + now - self._clock)
        self._clock = now

    # Episodes

    def collect(self, title: str, collector: Collector, requests: Sequence[EpisodeRequest]) -> list[Trajectory]:
        """Run the episodes that the journal lacks; all come back verified and paid, but for those given up."""
        return self._run(title, requests, lambda report: collector.collect(requests, report))

    def _run(
        self, title: str, requests: Sequence[EpisodeRequest], work: Callable[[Report], Coroutine[Any, Any, T]]
    ) -> T:
        key = requests[0].key
        held = {str(ended.key) for ended in self.journal.episodes(key.stage, key.purpose, key.iteration)}
        before = self.journal.failures_by_cause()
        with self.progress.phase(title, len(requests)) as phase:

            def report(trajectory: Trajectory) -> None:
                now = self.journal.failures_by_cause()
                failed = {cause: count - before.get(cause, 0) for cause, count in now.items()}
                phase.episode(trajectory, trajectory.episode_id in held, failed)
                self.beat()

            return self._runner.run(work(report))

    def workdirs(self, tasks: Sequence[Task]) -> dict[str, str]:
        """Where the sandboxes of tasks show their repository, by instance id."""

        async def found() -> dict[str, str]:
            environments = self.shop.environments
            return {task.instance_id: (await environments.prepare(task)).workdir for task in tasks}

        return self._runner.run(found())

    # Evaluation

    def evaluate_point(self, stage: RftStage | RlStage | None, iteration: int) -> None:
        """The full evaluation of a stage's end (None: of the untrained checkpoint), where the recipe names it."""
        if _name(stage) in self.recipe.evaluation.points:
            self._evaluate(stage, iteration, self.recipe.evaluation.runs)

    def evaluate_curve(self, stage: RlStage, iteration: int) -> None:
        """The small evaluation after every few RL iterations; a stage's last is left to its point, if it has one."""
        evaluation = self.recipe.evaluation
        at_point = iteration == stage.iterations and stage.name in evaluation.points
        if evaluation.every and evaluation.every_runs and iteration % evaluation.every == 0 and not at_point:
            self._evaluate(stage, iteration, evaluation.every_runs)

    def _evaluate(self, stage: RftStage | RlStage | None, iteration: int, runs: int) -> None:
        name, k = _name(stage), min(self.recipe.evaluation.k, runs)
        if any((done.stage, done.iteration) == (name, iteration) for done in self.journal.evaluations()):
            return
        collector = self.shop.collector(stage)
        title = f"{name} held-out" if iteration == 0 else f"{name} held-out after {iteration}"
        result = self._run(
            title,
            evaluation_requests(self.heldout, name, runs, iteration),
            lambda report: evaluate(
                collector, self.heldout, stage=name, runs=runs, k=k, iteration=iteration, progress=report
            ),
        )
        self.journal.record_evaluation(name, iteration, asdict(result))
        self.progress.say(f"{title}: {_in_words(result)}")

    # Weights

    def version(self, stage: RftStage | RlStage, iteration: int) -> int:
        """The number of the weights that an iteration makes: iterations are counted through the recipe, base is 0."""
        earlier = self.recipe.stages[: self.recipe.stages.index(stage)]
        return sum(_length(other) for other in earlier) + iteration

    def serve_stored(self, checkpoint: Checkpoint) -> None:
        """Let the policy, loaded from this checkpoint, bear its number."""
        version = self.version(self.recipe.stage(checkpoint.stage), checkpoint.iteration)
        self._runner.run(self.shop.policy.update_weights(stored_weights(checkpoint.path), version))

    def finish_iteration(
        self, stage: RftStage | RlStage, iteration: int, trainer: "Trainer", steps: Sequence[Metrics]
    ) -> Checkpoint:
        """Keep what the iteration made, first as a checkpoint, then in the journal, and serve it."""
        checkpoint = self.checkpoints.save(stage.name, iteration, steps, trainer.save)
        for step, metrics in enumerate(steps):
            self.journal.record_update(stage.name, iteration, step, metrics)
        self._runner.run(self.shop.policy.update_weights(trainer.state_dict(), self.version(stage, iteration)))
        self.beat()
        return checkpoint

    def resume(self, stage: RftStage | RlStage) -> Checkpoint | None:
        """The stage's newest checkpoint, if any; its metrics enter the journal where a kill came before they could."""
        found = self.checkpoints.latest(stage.name)
        if found is not None:
            held = {(update.iteration, update.step) for update in self.journal.updates(stage.name)}
            for step, metrics in enumerate(found.steps):
                if (found.iteration, step) not in held:
                    self.journal.record_update(stage.name, found.iteration, step, metrics)
        return found

    # Problems

    def pool(self, stage: RlStage) -> list[Task]:
        """The problems that an RL stage draws from: those of the RL stage before, less what its refresh takes out."""
        earlier = [
            other for other in self.recipe.stages[: self.recipe.stages.index(stage)] if isinstance(other, RlStage)
        ]
        if not earlier:
            return self.shop.train_tasks
        before = self.pool(earlier[-1])
        if stage.refresh is None:
            return before
        return refreshed(before, stage.refresh, self._rates("train", earlier[-1].name), self._rates("collect"))

    def _rates(self, purpose: str, stage: str | None = None) -> Rates:
        ended = self.journal.episodes(stage, purpose)
        return Rates.count(
            (each.key.task_id, each.rewarded) for each in ended if not each.stop_reason.is_infrastructure
        )


def probe(trajectories: Sequence[Trajectory]) -> list[Trajectory]:
    """The first episodes, up to PROBE_TOKENS: enough to tell an engine that samples differently from the trainer."""
    chosen: list[Trajectory] = []
    room = PROBE_TOKENS
    for trajectory in trajectories:
        room -= len(trajectory.token_ids_T)
        if chosen and room < 0:
            break
        if trajectory.turns:
            chosen.append(trajectory)
    return chosen


def _in_words(result: StageResult) -> str:
    sem = "" if result.sem is None else f" ± {100 * result.sem:.1f}"
    at_k = f", Pass@{result.k} {100 * result.pass_at_k:.1f}" if result.k > 1 else ""
    shape = f"{result.runs} x {result.tasks} episodes, {result.scored_of_asked} scored"
    unusual = unusual_verdicts(result.verdicts, result.tripwires)
    return f"Pass@1 {100 * result.pass_at_1:.1f}{sem}{at_k} ({shape})" + (f"; {unusual}" if unusual else "")


def _name(stage: RftStage | RlStage | None) -> str:
    return stage.name if stage else BASE


def _length(stage: RftStage | RlStage) -> int:
    return stage.iterations if isinstance(stage, RlStage) else 1
