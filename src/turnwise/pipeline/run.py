"""A run from its recipe: stage after stage, each resumable at any instant (PAPER.md, phases 1 and 2, appendix D).

Everything in a run is a pure function of what came before: the problems of an iteration follow from (seed, stage,
iteration), the tokens of a turn from (seed, episode, turn), an update from the iteration's episodes in their fixed
order. So a resumed run needs no state of its own: it walks the recipe from the start, finds the finished episodes in
the journal and the finished iterations among the checkpoints, and works only where one is missing.

The order that makes this safe: an iteration's checkpoint gets its name in one rename, with the metrics of its steps
inside; only then the journal gets those metrics, and a start gives it what it lacks.
"""

import asyncio
import hashlib
import json
from collections.abc import Callable
from pathlib import Path

from rich.console import Console

from turnwise.pipeline.checkpoints import Checkpoint, Checkpoints
from turnwise.pipeline.context import RUN, Run
from turnwise.pipeline.progress import Progress
from turnwise.pipeline.recipe import OPERATIONAL_KEYS, Recipe, RftStage, flat
from turnwise.pipeline.stages import fine_tune, reinforce
from turnwise.pipeline.workshop import open_workshop
from turnwise.rollout import Environments
from turnwise.store import Journal

FINISHED = "finished"
AfterStage = Callable[[Path], None]


def run_recipe(
    recipe: Recipe,
    run_dir: Path,
    *,
    console: Console,
    after_stage: AfterStage,
    environments: Environments | None = None,
) -> None:
    """Run the recipe in `run_dir`, or go on with what is there. `after_stage(run_dir)` is called after each stage.

    `environments` makes the tasks' sandbox specifications; the default builds them from source distributions.

    Raises StoreError when another process works on the run, InputError when the folder holds another recipe's run, and
    whatever stops a stage. KeyboardInterrupt passes through once engine and sandboxes are closed.
    """
    checkpoints = Checkpoints(run_dir / "checkpoints")
    with Journal.open(run_dir / "journal.sqlite", recipe_hash(recipe)) as journal, asyncio.Runner() as runner:
        newest = _newest(recipe, checkpoints)
        shop = open_workshop(recipe, journal, str(newest.path) if newest else recipe.weights, environments)
        try:
            run = Run(shop, checkpoints, Progress(console), runner)
            if newest is not None:
                run.serve_stored(newest)
            _stages(run, lambda: after_stage(run_dir))
            journal.set_state(RUN, FINISHED, True)
        finally:
            runner.run(shop.close())


def is_finished(run_dir: Path) -> bool:
    """True when the run in this folder came to its end; nothing heavy is loaded to find out."""
    path = run_dir / "journal.sqlite"
    if not path.is_file():
        return False
    with Journal.read(path) as journal:
        return bool(journal.state(RUN, FINISHED))


def _stages(run: Run, after_stage: Callable[[], None]) -> None:
    run.evaluate_point(None, 0)
    after_stage()
    for stage in run.recipe.stages:
        iteration = fine_tune(run, stage) if isinstance(stage, RftStage) else reinforce(run, stage)
        run.evaluate_point(stage, iteration)
        run.beat()
        after_stage()


def _newest(recipe: Recipe, checkpoints: Checkpoints) -> Checkpoint | None:
    """The last checkpoint that the run reached: later ones only exist when the earlier stages are done."""
    found = [checkpoints.latest(stage.name) for stage in recipe.stages]
    return next((checkpoint for checkpoint in reversed(found) if checkpoint is not None), None)


def recipe_hash(recipe: Recipe) -> str:
    """What the journal knows the recipe by: all that moves its results, wherever its files lie."""
    aside = OPERATIONAL_KEYS | {"model.checkpoint", "tasks.path"}
    kept = {key: value for key, value in flat(recipe).items() if key not in aside}
    return hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()[:16]
