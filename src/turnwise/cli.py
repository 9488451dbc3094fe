"""The command `turnwise`. Each verb imports what it needs when it runs, so that `--help` loads no torch."""

import json
import re
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from turnwise import __version__
from turnwise.errors import InputError, TaskError, TurnwiseError

if TYPE_CHECKING:
    from rich.table import Table

    from turnwise.config import Recipe
    from turnwise.types import Task

STOPPED = 130  # the shell's own code for "ended by Ctrl-C"

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    help="""Train software-engineering agents with reinforcement learning over long, multi-turn episodes.

A run is one **recipe** (TOML) and one **run folder**. Start it, kill it, start it again with the same command: it goes
on where it stopped, and no finished turn is paid for twice.

    turnwise quickstart                                  the whole paper in miniature, on a CPU

    turnwise train recipes/quickstart.toml --seed 7      the same by hand, with another seed

    turnwise report runs/quickstart                      summary.json and report.html of a run
""",
)
tasks_app = typer.Typer(no_args_is_help=True, help="Make tasks from real packages, and look at them.")
app.add_typer(tasks_app, name="tasks")

Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Lay a value over the recipe, for example `stages.rl-1.lr=1e-4`."),
]
Seed = Annotated[int | None, typer.Option(help="Short for `--set run.seed=N`.")]
Model = Annotated[str | None, typer.Option(help="Checkpoint folder or hub id: short for `--set model.checkpoint=…`.")]
RunDir = Annotated[Path | None, typer.Option(help="Run folder; else `runs/NAME`, with the seed if one is given.")]
TaskFile = Annotated[str, typer.Argument(metavar="FILE", help="JSONL file of tasks, or `frozen` for the shipped set.")]


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point: an error made for users is one line on stderr and exit code 1; `--debug` shows where it arose."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    try:
        app(given, prog_name="turnwise")
    except TurnwiseError as error:
        if "--debug" in given:
            raise
        print(f"turnwise: {error}", file=sys.stderr)
        sys.exit(1)


def _show_version(wanted: bool) -> None:
    if wanted:
        print(f"turnwise {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and leave.")
    ] = False,
) -> None:
    """Options that stand before the verb; `main` looks for `--debug` itself, for it alone sees the error."""


@app.command()
def train(
    recipe: Annotated[Path, typer.Argument(metavar="RECIPE", help="The recipe, a TOML file.")],
    run_dir: RunDir = None,
    seed: Seed = None,
    model: Model = None,
    set_: Overrides = None,
) -> None:
    """Run a recipe, or go on with it: the same command resumes what a kill or Ctrl-C left.

    The run folder gets the effective recipe, the journal, the checkpoints, `summary.json` and `report.html`.
    """
    from turnwise.config import load_recipe

    loaded = load_recipe(recipe, _overrides(seed, model, set_))
    _train(loaded, run_dir or _default_folder(loaded, seeded=seed is not None))


@app.command()
def quickstart(run_dir: RunDir = None, seed: Seed = None, model: Model = None, set_: Overrides = None) -> None:
    """The whole paper in miniature, on a CPU: collect, fine-tune, RL stage 1, refresh, RL stage 2, evaluate.

    Trains the stand-in model that ships (`--model` takes any other) on the frozen tasks, into `runs/quickstart`; with
    `--seed 7`, into `runs/quickstart-seed7`.
    """
    train(_checkout_file("recipes/quickstart.toml"), run_dir, seed, model, set_)


@app.command("eval")
def evaluate(
    model: Annotated[str, typer.Option(help="Checkpoint folder or hub id.")],
    tasks: Annotated[str, typer.Option(help="JSONL file of tasks, or `frozen`.")] = "frozen",
    split: Annotated[str, typer.Option(help="Which tasks by `meta.split`; `*` takes every task.")] = "heldout",
    runs: Annotated[int, typer.Option(min=1, help="Episodes per task; Pass@1 is their mean ± standard error.")] = 10,
    k: Annotated[int | None, typer.Option(min=1, help="k of Pass@k; else the number of runs.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Take only that many tasks (always the same ones).")] = None,
    recipe: Annotated[Path | None, typer.Option(help="Take the agent's and sandbox's settings from here.")] = None,
    run_dir: RunDir = None,
    seed: Seed = None,
    set_: Overrides = None,
) -> None:
    """Score a checkpoint in the scaffold: Pass@1 ± standard error, Pass@k, submit rate, turns, format errors.

    A checkpoint that a run trained wants the settings it was trained with: `--recipe runs/NAME/recipe.toml`.
    """
    from turnwise.config import evaluation_recipe

    given = [
        f"model.checkpoint={json.dumps(model)}",
        f"tasks.path={json.dumps(tasks)}",
        f"tasks.heldout_split={json.dumps(split)}",
    ]
    scored = evaluation_recipe(
        recipe,
        name="eval-" + re.sub(r"[^a-z0-9_.-]+", "-", model.lower()).strip("-."),
        evaluation={"runs": runs, "k": k or runs} | ({} if limit is None else {"tasks": limit}),
        overrides=[*given, *_overrides(seed, None, set_)],
    )
    _train(scored, run_dir or Path("runs") / scored.run.name)


@tasks_app.command("make")
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


@tasks_app.command("list")
def list_tasks(
    file: TaskFile = "frozen",
    split: Annotated[str | None, typer.Option(help="Only tasks with this `meta.split`.")] = None,
) -> None:
    """List tasks, one a line: id, split, kind of bug, where it is, and how many tests decide."""
    tasks = [task for task in _read_tasks(file) if split in (None, task.meta.get("split"))]
    for task in tasks:
        print(_task_line(task))
    print(f"{len(tasks)} tasks, {_split_counts(tasks)}")


@tasks_app.command("show")
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


@app.command()
def report(run_dir: Annotated[Path, typer.Argument(metavar="RUN", help="A run folder.")]) -> None:
    """Write `summary.json` and `report.html` from a run's journal (also while it runs), and show the table."""
    from turnwise.report import write_report

    write_report(run_dir)
    _show_summary(run_dir)


@app.command()
def export(
    run_dir: Annotated[Path, typer.Argument(metavar="RUN", help="A run folder.")],
    out: Annotated[Path, typer.Option(help="File to write (a folder for `traj`).")],
    format_: Annotated[
        Literal["jsonl", "parquet", "preds", "traj"], typer.Option("--format", help="What to write.")
    ] = "jsonl",
    stage: Annotated[str | None, typer.Option(help="Only this stage's episodes.")] = None,
) -> None:
    """Write a run's episodes as JSONL or Parquet rows, SWE-bench's `preds.json`, or SWE-agent's `.traj` files."""
    from turnwise.store import Journal, export_episodes

    with Journal.read(run_dir / "journal.sqlite") as journal:
        count = export_episodes(journal, out, format_, stage=stage)
    print(f"{count} episodes → {out}")


def _train(recipe: "Recipe", run_dir: Path) -> None:
    from rich.console import Console

    from turnwise.config import claim_run_folder
    from turnwise.pipeline.run import is_finished, run_recipe
    from turnwise.report import write_report

    claim_run_folder(recipe, run_dir)
    if is_finished(run_dir):
        print(f"{run_dir} is finished; remove it to run the recipe anew, or give another --run-dir")
        write_report(run_dir)
    else:
        try:
            run_recipe(recipe, run_dir, console=Console(), after_stage=write_report)
        except KeyboardInterrupt:
            print(f"\nstopped; the same command goes on with {run_dir}", file=sys.stderr)
            raise typer.Exit(STOPPED) from None
    _show_summary(run_dir)


def _read_tasks(file: str) -> list["Task"]:
    from turnwise.tasks import frozen_path, read_tasks

    return read_tasks(frozen_path() if file == "frozen" else Path(file))


def _task_line(task: "Task") -> str:
    split, kind = task.meta.get("split", "?"), task.meta.get("kind", "?")
    place = f"{task.meta.get('file', '?')}:{task.meta.get('function', '?')}"
    decide = f"{len(task.fail_to_pass)} to fix, {len(task.pass_to_pass)} to keep"
    return f"{task.instance_id:32} {split:8} {kind:20} {place} ({decide})"


def _split_counts(tasks: Sequence["Task"]) -> str:
    counts = Counter(str(task.meta.get("split", "without split")) for task in tasks)
    return ", ".join(f"{count} {split}" for split, count in sorted(counts.items()))


def _overrides(seed: int | None, model: str | None, written: list[str] | None) -> list[str]:
    short = [f"run.seed={seed}"] if seed is not None else []
    short += [f"model.checkpoint={json.dumps(model)}"] if model is not None else []
    return [*short, *(written or [])]


def _default_folder(recipe: "Recipe", seeded: bool) -> Path:
    return Path("runs") / (f"{recipe.run.name}-seed{recipe.run.seed}" if seeded else recipe.run.name)


def _checkout_file(name: str) -> Path:
    """A file of the checkout that this package is installed from."""
    path = Path(__file__).resolve().parents[2] / name
    if not path.is_file():
        raise InputError(
            f"{name} belongs to a checkout of Turnwise, and this installation has none; use `turnwise train`"
        )
    return path


def _show_summary(run_dir: Path) -> None:
    from rich.console import Console

    summary = json.loads((run_dir / "summary.json").read_text())
    console = Console()
    console.print(_summary_table(summary))
    failures = ", ".join(f"{count} {cause}" for cause, count in summary["infra_failures"].items()) or "none"
    print(
        f"{summary['episodes']:,} episodes in {summary['wall_s'] / 60:.1f} minutes; infrastructure failures: {failures}"
    )
    print(f"report: {run_dir / 'report.html'}")


def _summary_table(summary: dict[str, Any]) -> "Table":
    from rich.table import Table

    table = Table("stage", "Pass@1", "Pass@k", "submitted", "turns", "format errors", "runs", "tasks")
    for row in summary["stages"]:
        sem = f" ± {100 * row['sem']:.1f}" if row["sem"] is not None else ""
        table.add_row(
            row["name"],
            f"{100 * row['pass_at_1']:.1f}{sem}",
            f"{100 * row['pass_at_k']:.1f} (k={row['k']})",
            f"{row['submit_rate']:.0%}",
            f"{row['mean_turns']:.1f}",
            f"{row['format_error_rate']:.0%}",
            str(row["runs"]),
            str(row["tasks"]),
        )
    return table


if __name__ == "__main__":
    main()
