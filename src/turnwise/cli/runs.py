"""The verbs that make and read runs: train, quickstart, eval, report, export."""

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from turnwise.cli.common import Select, slug, tell_failures, until_stopped
from turnwise.errors import InputError

if TYPE_CHECKING:
    from rich.table import Table

    from turnwise.config import Recipe

Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Lay a value over the recipe, for example `stages.rl-1.lr=1e-4`."),
]
Seed = Annotated[int | None, typer.Option(help="Short for `--set run.seed=N`.")]
Model = Annotated[str | None, typer.Option(help="Checkpoint folder or hub id: short for `--set model.checkpoint=…`.")]
RunDir = Annotated[Path | None, typer.Option(help="Run folder; else `runs/NAME`, with the seed if one is given.")]


_INCOMPLETE = "without all of the agent's work (`left_out`)"


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


def quickstart(run_dir: RunDir = None, seed: Seed = None, model: Model = None, set_: Overrides = None) -> None:
    """The whole paper in miniature, on a CPU: collect, fine-tune, RL stage 1, refresh, RL stage 2, evaluate.

    Trains the stand-in model that ships (`--model` takes any other) on the frozen tasks, into `runs/quickstart`; with
    `--seed 7`, into `runs/quickstart-seed7`.
    """
    train(_checkout_file("recipes/quickstart.toml"), run_dir, seed, model, set_)


def evaluate(
    model: Annotated[str, typer.Option(help="Checkpoint folder or hub id; with --endpoint, the model's name there.")],
    endpoint: Annotated[str | None, typer.Option(help="An OpenAI-compatible API: what stands before /chat/…")] = None,
    api_key_env: Annotated[str | None, typer.Option(help="Environment variable that holds the endpoint's key.")] = None,
    tasks: Annotated[str, typer.Option(help="File of tasks, or `frozen`.")] = "frozen",
    select: Select = None,
    repos: Annotated[Path | None, typer.Option(help="Folder of clones: short for `--set tasks.repos=…`.")] = None,
    split: Annotated[
        str, typer.Option(help="Which tasks by `meta.split`, where they have one; `*` takes all.")
    ] = "heldout",
    runs: Annotated[int, typer.Option(min=1, help="Episodes per task; Pass@1 is their mean ± standard error.")] = 10,
    k: Annotated[int | None, typer.Option(min=1, help="k of Pass@k; else the number of runs.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Take only that many tasks (always the same ones).")] = None,
    recipe: Annotated[Path | None, typer.Option(help="Take the agent's and sandbox's settings from here.")] = None,
    run_dir: RunDir = None,
    seed: Seed = None,
    set_: Overrides = None,
) -> None:
    """Score a model in the scaffold: Pass@1 ± standard error, Pass@k, submit rate, turns, format errors.

    A checkpoint that a run trained wants the settings it was trained with: `--recipe runs/NAME/recipe.toml`. The run
    folder also gets SWE-bench's files: `preds.json`, `logs/`, `trajs/` and the run summary; those of several runs lie
    in `runs/0`, `runs/1`, …  The exit code is 1 where a task could not be scored at all.
    """
    from turnwise.config import evaluation_recipe

    if endpoint is None and api_key_env is not None:
        raise InputError("--api-key-env has no effect without --endpoint")
    asked = {"base_url": endpoint} | ({} if api_key_env is None else {"api_key_env": api_key_env})
    given = [f"tasks.path={json.dumps(tasks)}", f"tasks.heldout_split={json.dumps(split)}"]
    given += [] if select is None else [f"tasks.select={json.dumps(select)}"]
    given += [] if repos is None else [f"tasks.repos={json.dumps(str(repos))}"]
    scored = evaluation_recipe(
        recipe,
        name=f"eval-{slug(model)}",
        model=model,
        evaluation={"runs": runs, "k": k or runs} | ({} if limit is None else {"tasks": limit}),
        overrides=[*given, *_overrides(seed, None, set_)],
        chat=None if endpoint is None else asked,
    )
    _train(scored, run_dir or Path("runs") / scored.run.name)


def report(run_dir: Annotated[Path, typer.Argument(metavar="RUN", help="A run folder.")]) -> None:
    """Write `summary.json` and `report.html` from a run's journal (also while it runs), and show the table."""
    from turnwise.report import write_report

    write_report(run_dir)
    _show_summary(run_dir)


def export(
    run_dir: Annotated[Path, typer.Argument(metavar="RUN", help="A run folder.")],
    out: Annotated[Path, typer.Option(help="File to write (a folder for `traj`).")],
    format_: Annotated[
        Literal["jsonl", "parquet", "preds", "traj"], typer.Option("--format", help="What to write.")
    ] = "jsonl",
    stage: Annotated[str | None, typer.Option(help="Only this stage's episodes.")] = None,
) -> None:
    """Write a run's episodes as JSONL or Parquet rows, SWE-bench's `preds.json`, or SWE-agent's `.traj` files."""
    from turnwise.store import Journal, count_incomplete, export_episodes

    with Journal.read(run_dir / "journal.sqlite") as journal:
        count = export_episodes(journal, out, format_, stage=stage)
        incomplete = count_incomplete(journal, format_, stage)
    print(f"{count} episodes → {out}" + (f"; {incomplete} {_INCOMPLETE}" if incomplete else ""))


def _write_evaluation(recipe: "Recipe", run_dir: Path) -> None:
    """SWE-bench's files first: the page needs packages that scoring an endpoint does not."""
    from turnwise.evaluation import write_outputs
    from turnwise.report import write_report
    from turnwise.store import Journal

    with Journal.read(run_dir / "journal.sqlite") as journal:
        write_outputs(journal, run_dir, model_name=recipe.model_name, run_id=recipe.run.name)
    try:
        write_report(run_dir)
    except InputError as error:
        print(f"turnwise: {error}", file=sys.stderr)


def _train(recipe: "Recipe", run_dir: Path) -> None:
    from rich.console import Console

    from turnwise.config import claim_run_folder
    from turnwise.pipeline.run import is_finished, run_recipe
    from turnwise.report import write_report

    finish = write_report if recipe.stages else lambda folder: _write_evaluation(recipe, folder)
    claim_run_folder(recipe, run_dir)
    if is_finished(run_dir):
        print(f"{run_dir} is finished; remove it to run the recipe anew, or give another --run-dir")
        finish(run_dir)
    else:
        with until_stopped(f"the same command goes on with {run_dir}"):
            run_recipe(recipe, run_dir, console=Console(), after_stage=finish)
    _show_summary(run_dir)
    if not recipe.stages:
        _leave_if_unscored(run_dir)


def _leave_if_unscored(run_dir: Path) -> None:
    """Say what an evaluation's tasks were given up for; exit code 1 where one has no scored episode."""
    from turnwise.evaluation import failed_for_good
    from turnwise.store import Journal

    with Journal.read(run_dir / "journal.sqlite") as journal:
        tell_failures(failed_for_good(journal).values())
        ended = journal.episodes(purpose="evaluate")
    asked = {episode.key.task_id for episode in ended}
    scored = {episode.key.task_id for episode in ended if not episode.stop_reason.is_infrastructure}
    if len(scored) < len(asked):
        told = f"only {len(scored)} of {len(asked)} tasks were scored; the figures are of these alone"
        print(f"turnwise: {told}. Another --run-dir tries all again", file=sys.stderr)
        raise typer.Exit(1)


def _overrides(seed: int | None, model: str | None, written: list[str] | None) -> list[str]:
    short = [f"run.seed={seed}"] if seed is not None else []
    short += [f"model.checkpoint={json.dumps(model)}"] if model is not None else []
    return [*short, *(written or [])]


def _default_folder(recipe: "Recipe", seeded: bool) -> Path:
    return Path("runs") / (f"{recipe.run.name}-seed{recipe.run.seed}" if seeded else recipe.run.name)


def _checkout_file(name: str) -> Path:
    """A file of the checkout that this package is installed from."""
    path = Path(__file__).resolve().parents[3] / name
    if not path.is_file():
        raise InputError(
            f"{name} belongs to a checkout of Turnwise, and this installation has none; use `turnwise train`"
        )
    return path


def _show_summary(run_dir: Path) -> None:
    from rich.console import Console

    summary = json.loads((run_dir / "summary.json").read_text(encoding="utf-8"))
    console = Console()
    console.print(_summary_table(summary))
    failures = ", ".join(f"{count} {cause}" for cause, count in summary["infra_failures"].items()) or "none"
    print(
        f"{summary['episodes']:,} episodes in {summary['wall_s'] / 60:.1f} minutes; infrastructure failures: {failures}"
    )
    for line in _remarks(summary):
        print(line)
    if "usage" in summary:
        print(_usage_line(summary["usage"]))
    if (run_dir / "report.html").is_file():
        print(f"report: {run_dir / 'report.html'}")


def _remarks(summary: dict[str, Any]) -> list[str]:
    """What verdicts and patches give someone to look at, by stage and purpose; nothing where all is ordinary."""
    from turnwise.evaluation import unusual_verdicts

    told = [
        f"{each['stage']} {each['purpose']}: {words}"
        for each in summary["verdicts"]
        if (words := unusual_verdicts(each["verdicts"], each["tripwires"]))
    ]
    incomplete = summary["incomplete_patches"]
    return [
        *([f"verdicts to look at: {'; '.join(told)}"] if told else []),
        *([f"patches: {incomplete} {_INCOMPLETE}"] if incomplete else []),
    ]


def _usage_line(usage: dict[str, Any]) -> str:
    read, cached, uncounted = usage["prompt_tokens"], usage["cached_tokens"], usage["uncounted_turns"]
    least, rest = ("at least ", f" (the endpoint did not count {uncounted:,} turns)") if uncounted else ("", "")
    cost = "unknown: no policy.chat.price" if usage["cost_usd"] is None else f"{least}${usage['cost_usd']:,.4f}"
    share = f"{cached / read:.0%}" if read else "none"
    sampled = f"{usage['completion_tokens']:,} sampled"
    return f"tokens: {least}{read:,} read ({share} from cache), {sampled}; cost: {cost}{rest}"


def _summary_table(summary: dict[str, Any]) -> "Table":
    from rich.table import Table

    table = Table("stage", "Pass@1", "Pass@k", "submitted", "turns", "format errors", "runs", "tasks", "scored")
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
            "-" if row["scored"] is None else f"{row['scored']} of {row['asked']}",
        )
    return table
