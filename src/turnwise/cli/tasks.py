"""The verbs of `turnwise tasks`: make tasks, and look at them."""

import re
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from turnwise.errors import InputError, TaskError, TurnwiseError

if TYPE_CHECKING:
    from turnwise.tasks import Built
    from turnwise.types import Task

app = typer.Typer(no_args_is_help=True, help="Make tasks from real packages, and look at them.")
TaskFile = Annotated[str, typer.Argument(metavar="FILE", help="JSONL file of tasks, or `frozen` for the shipped set.")]


@app.command("make")
def make(
    packages: Annotated[list[str], typer.Argument(metavar="PACKAGE...", help="`NAME` or `NAME==VERSION`.")],
    out: Annotated[Path, typer.Option(help="File to write; an existing one is left alone.")] = Path("tasks.jsonl"),
    limit: Annotated[int, typer.Option(min=0, help="Bugs per package at most; 0 takes all.")] = 0,
    per_function: Annotated[int, typer.Option(min=1, help="Bugs in one function at most.")] = 6,
    max_test_s: Annotated[float, typer.Option(help="Leave out bugs whose tests take longer.")] = 10.0,
    repeats: Annotated[int, typer.Option(min=1, help="Runs of the tests that must agree.")] = 3,
    named_only: Annotated[bool, typer.Option(help="Keep a bug only if its issue names the broken function.")] = False,
    held_out: Annotated[float, typer.Option(min=0, max=1, help="Share of bugs kept out of training.")] = 0.25,
    jobs: Annotated[int, typer.Option(min=1, help="Sandboxes at once.")] = 2,
    seed: Annotated[int, typer.Option(help="Which bugs are tried first.")] = 0,
) -> None:
    """Make tasks from real packages' source distributions: inject bugs that their own tests notice.

    The package must ship its tests and be pure Python. Tasks found are written after each package; `turnwise train`
    takes the file as `--set tasks.path=FILE`.
    """
    from turnwise.pipeline.task_making import make_task_file
    from turnwise.tasks import MakeOptions

    options = MakeOptions(
        limit=limit,
        per_function=per_function,
        max_test_s=max_test_s,
        repeats=repeats,
        named_only=named_only,
        held_out=held_out,
        concurrency=jobs,
        seed=seed,
    )
    failed: list[str] = []

    def tell(requirement: str, made: Sequence["Task"] | TaskError) -> None:
        if isinstance(made, TaskError):
            failed.append(requirement)
            print(f"turnwise: {made}", file=sys.stderr)
        else:
            print(f"{requirement}: {len(made)} tasks, {_split_counts(made)}")

    found = make_task_file(packages, out, options, lambda task: print(_task_line(task), flush=True), tell)
    print(f"{len(found)} tasks" + (f" → {out}" if found else ""))
    if failed:
        raise typer.Exit(1)


@app.command("build")
def build(
    source: TaskFile,
    repos: Annotated[
        Path | None,
        typer.Option(help="Folder of clones or mirrors named OWNER__NAME or OWNER__NAME.git; others are cloned."),
    ] = None,
    select: Annotated[str, typer.Option(metavar="REGEX", help="Only tasks whose id matches.")] = "",
    workers: Annotated[int, typer.Option(min=1, help="Environments at once.")] = 2,
) -> None:
    """Build the environments of tasks, so that their sandboxes start at once: a line a task, with its seconds.

    A task that fails says why and does not stop the others; the exit code is 1 then. What is built already is only
    looked up.
    """
    import asyncio

    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    from turnwise.tasks import Built, EnvironmentStore, build_all

    if repos is not None and not repos.is_dir():
        raise InputError(f"--repos {repos}: no such folder")
    tasks = _selected(_read_tasks(source), select, source)
    columns = (TextColumn("building"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        bar = progress.add_task("", total=len(tasks))

        def tell(task: "Task", outcome: Built | TurnwiseError) -> None:
            print(_build_line(task, outcome), flush=True)
            progress.advance(bar)

        failed = asyncio.run(build_all(EnvironmentStore(repos=repos), tasks, workers, tell))
    print(f"{len(tasks) - failed} ready, {failed} failed")
    if failed:
        raise typer.Exit(1)


@app.command("list")
def list_tasks(
    file: TaskFile = "frozen",
    split: Annotated[str | None, typer.Option(help="Only tasks with this `meta.split`.")] = None,
) -> None:
    """List tasks, one a line: id, split, kind of bug, where it is, and how many tests decide."""
    tasks = [task for task in _read_tasks(file) if split in (None, task.meta.get("split"))]
    for task in tasks:
        print(_task_line(task))
    print(f"{len(tasks)} tasks, {_split_counts(tasks)}")


@app.command("show")
def show_task(
    task_id: Annotated[str, typer.Argument(metavar="TASK", help="Its instance id, as `tasks list` shows it.")],
    file: TaskFile = "frozen",
    solution: Annotated[bool, typer.Option(help="Also show the gold patch and the hidden tests.")] = False,
) -> None:
    """Show a task as the model gets it; with `--solution`, what it never sees."""
    tasks = {task.instance_id: task for task in _read_tasks(file)}
    if task_id not in tasks:
        raise InputError(f"{file}: no task is called {task_id!r}")
    task = tasks[task_id]
    print(f"{_task_line(task)}\n\n{task.problem_statement}")
    if solution:
        print(f"\n--- gold patch\n{task.patch}\n--- hidden tests\n{task.test_patch}")


def _read_tasks(file: str) -> list["Task"]:
    from turnwise.tasks import frozen_path, read_tasks

    return read_tasks(frozen_path() if file == "frozen" else Path(file))


def _selected(tasks: Sequence["Task"], select: str, source: str) -> list["Task"]:
    try:
        chosen = [task for task in tasks if re.search(select, task.instance_id)]
    except re.error as error:
        raise InputError(f"--select {select!r}: is no regular expression ({error})") from error
    if not chosen:
        raise InputError(f"--select {select!r}: matches none of the {len(tasks)} tasks of {source}")
    return chosen


def _build_line(task: "Task", outcome: "Built | TurnwiseError") -> str:
    if isinstance(outcome, TurnwiseError):
        named = str(outcome).startswith(task.instance_id)
        return f"{'' if named else f'{task.instance_id}: '}{outcome}"
    lines = [f"{task.instance_id}: ready in {outcome.build_s:.1f} s with Python {outcome.python}"]
    return "\n".join([*lines, *(f"  not had: {what}" for what in outcome.left_out)])


def _task_line(task: "Task") -> str:
    split, kind = task.meta.get("split", "?"), task.meta.get("kind", "?")
    place = f"{task.meta.get('file', '?')}:{task.meta.get('function', '?')}"
    decide = f"{len(task.fail_to_pass)} to fix, {len(task.pass_to_pass)} to keep"
    return f"{task.instance_id:32} {split:8} {kind:20} {place} ({decide})"


def _split_counts(tasks: Sequence["Task"]) -> str:
    counts = Counter(str(task.meta.get("split", "without split")) for task in tasks)
    return ", ".join(f"{count} {split}" for split, count in sorted(counts.items()))
