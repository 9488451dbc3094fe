"""The verbs about evaluations that were made: verify anyone's predictions, compare runs."""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from turnwise.cli.common import Select, leave_if_failed, plain_name, slug, tell_failures, until_stopped
from turnwise.errors import InputError, TaskFailure

if TYPE_CHECKING:
    from rich.table import Table

    from turnwise.evaluation import Matched, PairedDifference, Score


def verify(
    predictions: Annotated[Path, typer.Argument(metavar="PREDS", help="`preds.json` (object or list) or `.jsonl`.")],
    tasks: Annotated[str, typer.Option(help="File of tasks, or `frozen`.")],
    select: Select = None,
    workers: Annotated[int | None, typer.Option(min=1, help="Test runs at once; else the recipe's.")] = None,
    out: Annotated[Path | None, typer.Option(help="Folder to write; else `runs/verify-RUN_ID`.")] = None,
    run_id: Annotated[str | None, typer.Option(help="Name in the summary's file name; else PREDS's.")] = None,
    repos: Annotated[Path | None, typer.Option(help="Folder of clones of the tasks' repositories.")] = None,
    recipe: Annotated[Path | None, typer.Option(help="Take the sandbox's settings from here.")] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="For example `sandbox.memory_mb=4096`.")
    ] = None,
) -> None:
    """Grade anyone's predictions with the hidden tests, each in a fresh sandbox.

    Writes swebench's files: `logs/ID/report.json`, `logs/ID/test_output.txt`, and the run summary. The same command
    goes on where it was stopped, and tries again what the machine failed; the exit code is 1 while that is something,
    or where a task's row is at fault.
    """
    from rich.console import Console

    from turnwise.config import sandbox_settings
    from turnwise.evaluation import failed_for_good, match, read_predictions, unusual_verdicts
    from turnwise.pipeline.grading import grade_predictions
    from turnwise.pipeline.workshop import named_tasks
    from turnwise.store import Journal

    given = [] if workers is None else [f"sandbox.verifications={workers}"]
    sandbox = sandbox_settings(recipe, [*(set_ or []), *given])
    name = slug(str(predictions.with_suffix(""))) if run_id is None else plain_name("--run-id", run_id)
    task_set = named_tasks(tasks, select)
    matched = match(read_predictions(predictions), task_set)
    if not matched.pairs:
        raise InputError(f"{predictions}: no prediction is for a task of {tasks}; the first is {matched.unknown[0]!r}")
    _tell(matched)
    folder = out or Path("runs") / f"verify-{name}"
    with until_stopped(f"the same command goes on with {folder}"):
        path = grade_predictions(
            matched, task_set, folder, run_id=name, sandbox=sandbox, console=Console(), repos=repos
        )
    summary = json.loads(path.read_text(encoding="utf-8"))
    Console().print(_verified_table(summary))
    with Journal.read(folder / "journal.sqlite") as journal:
        figures = journal.evaluations()[-1].figures
        failures = failed_for_good(journal).values()
    unusual = unusual_verdicts(figures["verdicts"], figures["tripwires"])
    if unusual:
        print(f"verdicts to look at: {unusual}")
    print(f"summary: {path}")
    tell_failures(failures)
    at_fault = sum(failure.cause == TaskFailure.cause for failure in failures)
    leave_if_failed(len(failures) - at_fault, summary["submitted_instances"], "patches", at_fault)


def compare(
    runs: Annotated[
        list[str], typer.Argument(metavar="RUN...", help="Run folders; `RUN:STAGE` takes another stage's evaluation.")
    ],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON and no table.")] = False,
) -> None:
    """Several evaluations of the same tasks side by side; of two, also their paired difference over tasks."""
    from rich.console import Console

    from turnwise.evaluation import check_same_tasks, paired_difference, read_score

    scores = [read_score(run) for run in runs]
    check_same_tasks(scores)
    difference = paired_difference(scores[0], scores[1]) if len(scores) == 2 else None
    if as_json:
        print(json.dumps(_as_json(scores, difference), indent=2))
        return
    Console().print(_comparison_table(scores))
    if difference is not None:
        print(_in_words(scores, difference))


def _tell(matched: "Matched") -> None:
    for ids, what in (
        (matched.unknown, "predictions are for no task of this set and are left out"),
        (matched.without, "tasks have no prediction"),
        (matched.patchless, "predictions hold no patch"),
    ):
        if ids:
            more = ", …" if len(ids) > 5 else ""
            print(f"{len(ids)} {what}: {', '.join(ids[:5])}{more}", file=sys.stderr)


def _verified_table(summary: dict[str, Any]) -> "Table":
    from rich.table import Table

    names = ("resolved", "unresolved", "empty_patch", "error", "submitted", "total")
    table = Table(*(name.replace("_", " ") for name in names), "resolved of total")
    share = summary["resolved_instances"] / summary["total_instances"]
    table.add_row(*(str(summary[f"{name}_instances"]) for name in names), f"{share:.1%}")
    return table


def _comparison_table(scores: Sequence["Score"]) -> "Table":
    """One row an evaluation, within 80 columns where names are short; nothing is cut off."""
    from rich.table import Table

    caption = f"{len(scores[0].task_ids)} tasks, the same for all; Pass@ in %, tokens of an episode"
    table = Table(box=None, padding=(0, 2, 0, 0), caption=caption, caption_justify="left")
    for name in ("evaluation", "Pass@1", "Pass@k", "resolved", "turns", "submit", "tokens", "cost", "runs", "scored"):
        table.add_column(name, overflow="fold")
    for score in scores:
        result = score.result
        table.add_row(
            score.name,
            f"{100 * result.pass_at_1:.1f}" + ("" if result.sem is None else f" ± {100 * result.sem:.1f}"),
            f"{100 * result.pass_at_k:.1f} (k={result.k})",
            f"{score.resolved} of {score.attempts}",
            f"{result.mean_turns:.1f}",
            f"{result.submit_rate:.0%}",
            f"{score.tokens:,.0f}",
            _cost(score),
            str(result.runs),
            result.scored_of_asked,
        )
    return table


def _cost(score: "Score") -> str:
    """The cost with "≥" where some turns came without a count."""
    if score.cost_usd is None:
        return "-"
    return f"{'≥ ' if score.uncounted_turns else ''}${score.cost_usd:,.2f}"


def _in_words(scores: Sequence["Score"], difference: "PairedDifference") -> str:
    sem = "" if difference.sem is None else f" ± {100 * difference.sem:.1f}"
    return (
        f"{scores[0].name} minus {scores[1].name}: {100 * difference.mean:+.1f}{sem} points, "
        f"paired over {difference.tasks} tasks"
    )


def _as_json(scores: Sequence["Score"], difference: "PairedDifference | None") -> dict[str, Any]:
    from dataclasses import asdict

    paired = None if difference is None else asdict(difference)
    return {"evaluations": [score.as_dict() for score in scores], "paired_difference": paired}
