"""The verbs of `turnwise tasks`: make tasks, read those of others, choose among them, and look at them."""

import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from turnwise.cli.common import Select, leave_if_failed, until_stopped
from turnwise.errors import InputError, TaskError, TurnwiseError

if TYPE_CHECKING:
    from turnwise.tasks import Built
    from turnwise.tasks.filters import Step
    from turnwise.tasks.verdicts import GateVerdict
    from turnwise.types import Task

app = typer.Typer(no_args_is_help=True, help="Make tasks from real packages; read and choose tasks of any source.")
SOURCE_HELP = (
    "Rows of any known format: a .jsonl, .json or .parquet file, or a Hugging Face dataset `org/name[:split]`; "
    "`frozen` is the shipped set."
)
Source = Annotated[str, typer.Argument(metavar="SOURCE", help=SOURCE_HELP)]
Split = Annotated[str | None, typer.Option(help="Only tasks with this `meta.split`.")]
Repos = Annotated[
    Path | None,
    typer.Option(help="Folder of clones or mirrors named OWNER__NAME or OWNER__NAME.git; others are cloned."),
]
Backend = Annotated[
    Literal["local", "docker", "kubernetes"] | None, typer.Option(help="Short for `--set sandbox.backend=…`.")
]
SandboxRecipe = Annotated[Path | None, typer.Option(help="Take the sandbox's settings from here.")]
SandboxSet = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="For example `sandbox.memory_mb=4096`.")
]
NewFile = Annotated[Path, typer.Option(help="File to write; an existing one is left alone.")]


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
    held_out_by: Annotated[
        Literal["function", "file", "package"],
        typer.Option(help="What is trained on or held out as a whole, with all bugs in it."),
    ] = "function",
    split_seed: Annotated[int, typer.Option(help="Which functions, files or packages are held out.")] = 0,
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
        held_out_by=held_out_by,
        split_seed=split_seed,
        concurrency=jobs,
        seed=seed,
    )
    failed: list[str] = []

    def tell(requirement: str, made: Sequence["Task"] | TaskError) -> None:
        if isinstance(made, TaskError):
            failed.append(requirement)
            print(f"turnwise: {made}", file=sys.stderr)
        else:
            print(f"{requirement}: {len(made)} tasks, {', '.join(_split_counts(made))}")

    with until_stopped(f"{out} holds the packages that were finished, if any"):
        found = make_task_file(packages, out, options, lambda task: print(_task_line(task), flush=True), tell)
    print(f"{len(found)} tasks" + (f" → {out}" if found else ""))
    if failed:
        raise typer.Exit(1)


@app.command("build")
def build(
    source: Source,
    repos: Repos = None,
    select: Select = None,
    workers: Annotated[int, typer.Option(min=1, help="Environments at once.")] = 2,
) -> None:
    """Build the environments of tasks, so that their sandboxes start at once: a line a task, with its seconds.

    A task that fails says why and does not stop the others; the exit code is 1 then. What is built already is only
    looked up.
    """
    import asyncio

    from turnwise.tasks import Built, EnvironmentStore, build_all

    if repos is not None and not repos.is_dir():
        raise InputError(f"--repos {repos}: no such folder")
    tasks, refused = _chosen(source, select, None)
    with until_stopped("the same command goes on"), bar("building", len(tasks)) as advance:

        def tell(task: "Task", outcome: Built | TurnwiseError) -> None:
            advance(_build_line(task, outcome))

        failed = asyncio.run(build_all(EnvironmentStore(repos=repos), tasks, workers, tell))
    print(f"{len(tasks) - failed} ready, {failed} failed")
    _leave_if(refused)
    if failed:
        raise typer.Exit(1)


@app.command("validate")
def validate(
    source: Source,
    out: Annotated[Path, typer.Option(help="File of verdicts; those that it holds are not done again.")],
    repos: Repos = None,
    sandbox: Backend = None,
    repeats: Annotated[int, typer.Option(min=1, help="Runs of the gold patch that must agree test by test.")] = 3,
    workers: Annotated[int, typer.Option(min=1, help="Tasks at once.")] = 2,
    select: Select = None,
    split: Split = None,
    recipe: SandboxRecipe = None,
    set_: SandboxSet = None,
) -> None:
    """The gate: find out by running them which tasks may be trained on, and write a JSON line a task.

    A task is admitted if its gold patch resolves it in every run and doing nothing does not, no test needs network, and
    the sandbox shows nothing of the solution. The same command goes on where it was stopped, and tries again what the
    machine failed; the exit code is 1 while that is something. `turnwise train` takes the file as
    `--set tasks.gate=FILE`.
    """
    from turnwise.config import sandbox_settings
    from turnwise.pipeline.validation import validate_tasks
    from turnwise.tasks.verdicts import Fault

    if out.exists() and Path(source).exists() and out.samefile(source):
        raise InputError(f"{out}: is the source of the tasks; name another file for the verdicts with --out")
    settings = sandbox_settings(recipe, [*(set_ or []), *backend_key(sandbox)])
    tasks, refused = _chosen(source, select, split)
    with until_stopped(f"the same command goes on with {out}"), bar("validating", len(tasks)) as advance:
        verdicts = validate_tasks(
            tasks,
            out,
            sandbox=settings,
            repeats=repeats,
            workers=workers,
            repos=repos,
            tell=lambda verdict: advance(_verdict_line(verdict)),
        )
    _show_verdicts(verdicts)
    leave_if_failed(sum(verdict.fault is Fault.INFRASTRUCTURE for verdict in verdicts), len(tasks), "tasks")
    _leave_if(refused)


@app.command("list")
def list_tasks(source: Source = "frozen", select: Select = None, split: Split = None) -> None:
    """List tasks, one a line: id, where it is from and of what kind, and how many tests decide.

    Rows that are no tasks are told apart, each with its fault, and make the exit code 1.
    """
    tasks, refused = _chosen(source, select, split)
    for task in tasks:
        print(_task_line(task))
    print(f"{len(tasks)} tasks" + "".join(f", {count}" for count in _split_counts(tasks)))
    _leave_if(refused)


@app.command("show")
def show_task(
    task_id: Annotated[str, typer.Argument(metavar="TASK", help="Its instance id, as `tasks list` shows it.")],
    source: Source = "frozen",
    solution: Annotated[bool, typer.Option(help="Also show the gold patch and the hidden tests.")] = False,
) -> None:
    """Show a task as the model gets it; with `--solution`, what it never sees."""
    tasks = {task.instance_id: task for task in _scan(source)[0]}
    if task_id not in tasks:
        raise InputError(f"{source}: no task is called {task_id!r}")
    task = tasks[task_id]
    print("\n".join([_task_line(task), *_environment_lines(task), "", task.problem_statement]))
    if solution:
        print(f"\n--- gold patch\n{task.patch}\n--- hidden tests\n{task.test_patch}")


@app.command("convert")
def convert(source: Source, out: NewFile, select: Select = None, split: Split = None) -> None:
    """Write tasks of any source as our own rows, which `turnwise train` takes as `--set tasks.path=FILE`.

    Rows that are no tasks are left out, each with its fault, and make the exit code 1.
    """
    _refuse_existing(out)
    tasks, refused = _chosen(source, select, split)
    _write(out, tasks)
    _leave_if(refused)


@app.command("filter")
def filter_tasks(
    source: Source,
    out: NewFile,
    select: Select = None,
    split: Split = None,
    max_files: Annotated[int, typer.Option(min=1, help="Files that a gold patch may change.")] = 7,
    max_lines: Annotated[int, typer.Option(min=1, help="Lines changed that a gold patch must stay below.")] = 500,
    max_llm_score: Annotated[float, typer.Option(help="What every score in `meta.llm_score` must stay below.")] = 3.0,
    verdicts: Annotated[
        Path | None, typer.Option(help="What the gate found, as `tasks validate` writes it; without it nothing is run.")
    ] = None,
) -> None:
    """Write the tasks that pass the paper's filters (sec. 4.1) as our own rows, and show what each filter dropped."""
    from turnwise.tasks.filters import funnel, paper_filters
    from turnwise.tasks.verdicts import read_verdicts

    _refuse_existing(out)
    known = read_verdicts(verdicts) if verdicts else None
    tasks, refused = _chosen(source, select, split)
    passed = funnel(tasks, paper_filters(max_files, max_lines, max_llm_score, known))
    show_funnel("filter", "read", len(tasks), passed.steps)
    _write(out, passed.tasks)
    _leave_if(refused)


def backend_key(sandbox: str | None) -> list[str]:
    """`--sandbox` as the key that it is short for."""
    return [] if sandbox is None else [f"sandbox.backend={sandbox}"]


def _scan(source: str) -> "tuple[list[Task], int]":
    """The source's tasks and how many of its rows are none, which are told on stderr."""
    from turnwise.tasks import frozen_path, scan_tasks

    scan = scan_tasks(frozen_path() if source == "frozen" else source)
    for fault in scan.refused:
        print(f"turnwise: {fault}", file=sys.stderr)
    if not scan.tasks and not scan.refused:
        raise TaskError(f"{source}: holds no tasks; make some with `turnwise tasks make PACKAGE==VERSION`")
    return list(scan.tasks), len(scan.refused)


def _chosen(source: str, wanted: str | None, split: str | None) -> "tuple[list[Task], int]":
    from turnwise.tasks import select

    tasks, refused = _scan(source)
    chosen = select(tasks, wanted) if wanted is not None else tasks
    of_split = [task for task in chosen if split in (None, task.meta.get("split"))]
    if chosen and not of_split:
        known = sorted({str(task.meta["split"]) for task in chosen if "split" in task.meta})
        there = f"there are {', '.join(known)}" if known else "they have no splits"
        raise TaskError(f"{source}: none of {len(chosen)} tasks has meta.split {split!r}; {there}")
    return of_split, refused


def _leave_if(refused: int) -> None:
    if refused:
        told = "1 row is no task" if refused == 1 else f"{refused} rows are no tasks"
        print(f"turnwise: {told} (above)", file=sys.stderr)
        raise typer.Exit(1)


def _write(out: Path, tasks: Sequence["Task"]) -> None:
    from turnwise.tasks import write_tasks

    if tasks:
        write_tasks(out, tasks)
    counts = "".join(f", {count}" for count in _split_counts(tasks))
    print(f"{len(tasks)} tasks{counts} → {out}" if tasks else f"no tasks, {out} is not written")


def _refuse_existing(out: Path) -> None:
    if out.exists():
        raise InputError(f"{out}: exists already; name another file with --out, or remove it")


def _build_line(task: "Task", outcome: "Built | TurnwiseError") -> str:
    if isinstance(outcome, TurnwiseError):
        named = str(outcome).startswith(task.instance_id)
        return f"{'' if named else f'{task.instance_id}: '}{outcome}"
    lines = [f"{task.instance_id}: ready in {outcome.build_s:.1f} s with Python {outcome.python}"]
    return "\n".join([*lines, *(f"  not had: {what}" for what in outcome.left_out)])


@contextmanager
def bar(title: str, total: int) -> Iterator[Callable[[str], None]]:
    """A bar on stderr with the time to go; call what it gives with the line of each that is done."""
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TextColumn("to go"), TimeRemainingColumn())
    with Progress(TextColumn(title), *columns, console=Console(stderr=True), transient=True) as progress:
        bar = progress.add_task("", total=total)

        def advance(line: str) -> None:
            print(line, flush=True)
            progress.advance(bar)

        yield advance


def _verdict_line(verdict: "GateVerdict") -> str:
    word = "admitted" if verdict.admitted else "refused"
    return f"{verdict.instance_id}: {word}" + (f": {verdict.reason}" if verdict.reason else "")


def _task_line(task: "Task") -> str:
    from turnwise.types import Checkout

    decide = f"({len(task.fail_to_pass)} to fix, {len(task.pass_to_pass)} to keep)"
    if isinstance(task.environment, Checkout):
        origin = f"{task.repo} {task.version}".strip()
        return " ".join([f"{task.instance_id:36} {origin:32}", *filter(None, [task.meta.get("format")]), decide])
    split, kind = task.meta.get("split", "?"), task.meta.get("kind", "?")
    place = f"{task.meta.get('file', '?')}:{task.meta.get('function', '?')}"
    return f"{task.instance_id:32} {split:8} {kind:20} {place} {decide}"


def _environment_lines(task: "Task") -> list[str]:
    """How a foreign task is made and tested, one thing a line."""
    from turnwise.types import Checkout

    if not isinstance(task.environment, Checkout):
        return []
    told = {
        "commit": task.base_commit,
        "image": task.environment.image,
        "python": task.environment.installation.python,
        "tests": task.test_run.command if task.test_run else "",
        "log parser": task.test_run.log_parser if task.test_run else "",
    }
    return [f"{name:10} {value}" for name, value in told.items() if value]


def _split_counts(tasks: Sequence["Task"]) -> list[str]:
    counts = Counter(str(task.meta.get("split") or task.meta.get("format", "without split")) for task in tasks)
    return [f"{count} {name}" for name, count in sorted(counts.items())]


def _show_verdicts(verdicts: Sequence["GateVerdict"]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table("gate")
    table.add_column("tasks", justify="right")
    table.add_row("admitted", str(sum(verdict.admitted for verdict in verdicts)))
    counts = Counter(str(verdict.fault or "other") for verdict in verdicts if not verdict.admitted)
    for fault, count in counts.most_common():
        table.add_row(f"refused: {fault}", str(count))
    table.add_row("all", str(len(verdicts)))
    Console().print(table)


def show_funnel(title: str, first: str, count: int, steps: Sequence["Step"]) -> None:
    """Print a funnel as a table: how many there were at `first`, then what each step dropped and left."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title)
    for name in ("dropped", "left"):
        table.add_column(name, justify="right")
    table.add_row(first, "", str(count))
    for step in steps:
        table.add_row(step.name, str(len(step.dropped)), str(step.left))
    Console().print(table)
