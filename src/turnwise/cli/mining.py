"""The verb `turnwise tasks mine`: tasks out of a repository's own past."""

from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from turnwise.cli.common import leave_if_failed, until_stopped
from turnwise.cli.tasks import Backend, SandboxRecipe, SandboxSet, backend_key, bar, show_funnel
from turnwise.errors import InputError
from turnwise.files import require_regular

if TYPE_CHECKING:
    from turnwise.pipeline.mining import Mined


def mine(
    path: Annotated[Path, typer.Argument(metavar="PATH", help="A git repository: a clone, a bare one or a mirror.")],
    out: Annotated[Path, typer.Option(help="File of the tasks; one that was mined before is added to.")],
    gate: Annotated[
        Path | None, typer.Option(help="File of verdicts; else `NAME.gate.jsonl` beside the tasks.")
    ] = None,
    repo: Annotated[str | None, typer.Option(metavar="OWNER/NAME", help="Else as the remote `origin` tells.")] = None,
    ref: Annotated[str, typer.Option(help="The branch, tag or commit to go back from.")] = "HEAD",
    since: Annotated[
        datetime | None, typer.Option(formats=["%Y-%m-%d"], help="Only commits of this day or later.")
    ] = None,
    limit: Annotated[int, typer.Option(min=0, help="Tasks at most; 0 takes all.")] = 0,
    tries: Annotated[int, typer.Option(min=0, help="Candidates at most, the newest; 0 tries all.")] = 0,
    max_files: Annotated[int, typer.Option(min=1, help="Files that a gold patch may change.")] = 7,
    max_lines: Annotated[int, typer.Option(min=1, help="Lines changed that a gold patch must stay below.")] = 500,
    test_command: Annotated[
        str,
        typer.Option(help="The repository's own, such as 'pytest -rA': its pytest settings count. Else our runner."),
    ] = "",
    python: Annotated[
        str, typer.Option(metavar="VERSION", help="Such as 3.11; else as the repository's metadata tells.")
    ] = "",
    install: Annotated[
        list[str] | None,
        typer.Option(metavar="COMMAND", help="Install it so, such as 'pip install -e .[test]'; may be given again."),
    ] = None,
    repeats: Annotated[int, typer.Option(min=1, help="Runs of the tests that must agree, on each side.")] = 3,
    workers: Annotated[int, typer.Option(min=1, help="Candidates at once.")] = 2,
    held_out: Annotated[float, typer.Option(min=0, max=1, help="Share of tasks, the newest, kept out.")] = 0.25,
    sandbox: Backend = None,
    recipe: SandboxRecipe = None,
    set_: SandboxSet = None,
) -> None:
    """Make tasks of a repository's own past: commits that mended something and brought the tests for it.

    Each candidate is built, its tests are run without and with its fix, and what is left goes through the gate. The
    same command goes on where it was stopped, and tries again what the machine failed; the exit code is 1 while that is
    something. `turnwise train` takes the files as `--set tasks.path=FILE` and
    `--set tasks.gate=FILE`.
    """
    from rich.console import Console

    from turnwise.config import sandbox_settings
    from turnwise.pipeline.mining import Mining, mine_tasks, mining_steps
    from turnwise.tasks.mine import Rules, find_candidates, open_history, repository_name
    from turnwise.tasks.verdicts import Fault

    verdicts_file = _verdicts_file(out, gate)
    options = Mining(repeats, workers, limit, held_out, test_command, python, tuple(install or ()))
    settings = sandbox_settings(recipe, [*(set_ or []), *backend_key(sandbox)])
    rules = Rules(max_files, max_lines, since.date() if since else None)
    history, tip = open_history(path, ref)
    with Console(stderr=True).status("looking for commits that mend something"):
        prospects = find_candidates(history, tip, repository_name(history, repo), rules, tries)
    words = f"the same command goes on with {out} and {verdicts_file}"
    with until_stopped(words), bar("mining", len(prospects.candidates)) as advance:
        verdicts = mine_tasks(
            prospects.candidates,
            history.folder,
            out,
            verdicts_file,
            sandbox=settings,
            options=options,
            tell=lambda mined: advance(_mined_line(mined)),
        )
    show_funnel("mine", "commits looked at", prospects.commits, mining_steps(prospects, verdicts))
    admitted = sum(verdict.admitted for verdict in verdicts.values())
    tasks = "1 task" if admitted == 1 else f"{admitted} tasks"
    print(f"{tasks} → {out}, verdicts → {verdicts_file}" if admitted else "no task was admitted")
    if not 0 < limit <= admitted:  # else nothing more is tried
        failed = sum(verdict.fault is Fault.INFRASTRUCTURE for verdict in verdicts.values())
        leave_if_failed(failed, len(verdicts), "candidates")


def _verdicts_file(out: Path, gate: Path | None) -> Path:
    """The file of the verdicts. Raises InputError for files that tasks or verdicts can't be kept in."""
    if out.suffix != ".jsonl":  # what its rows are is told by its name when it is read again
        raise InputError(f"{out}: should be a .jsonl file")
    verdicts_file = gate or out.with_name(f"{out.stem}.gate.jsonl")
    if out.resolve() == verdicts_file.resolve():
        raise InputError(f"{out}: is to hold the tasks and the verdicts; name another file with --gate")
    for file in (out, verdicts_file):
        require_regular(file)
    return verdicts_file


def _mined_line(mined: "Mined") -> str:
    verdict = mined.verdict
    if mined.task is None:
        return f"{verdict.instance_id}: refused: {verdict.reason}"
    told = f"{len(mined.task.fail_to_pass)} to fix, {len(mined.task.pass_to_pass)} to keep"
    unsteady = len(mined.measured.unsteady) if mined.measured else 0
    return f"{verdict.instance_id}: admitted: {told}" + (f", {unsteady} unsteady left out" if unsteady else "")
