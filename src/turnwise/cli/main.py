"""The entry point: the verbs put together, and an error told as one line."""

import io
import locale
import os
import sys
from collections.abc import Sequence
from typing import Annotated

import typer

from turnwise import __version__
from turnwise.cli import evaluations, mining, runs, tasks
from turnwise.errors import TurnwiseError

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

    turnwise eval --endpoint URL --model NAME            score an OpenAI-compatible endpoint

    turnwise report runs/quickstart                      summary.json and report.html of a run
""",
)
app.command()(runs.train)
app.command()(runs.quickstart)
app.command("eval")(runs.evaluate)
app.command()(evaluations.verify)
app.command()(evaluations.compare)
app.command()(runs.report)
app.command()(runs.export)
tasks.app.command("mine")(mining.mine)
app.add_typer(tasks.app, name="tasks")


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point: an error made for users, or of the system, is one line on stderr and exit code 1.

    `--debug` shows where it arose.
    """
    if arguments is None:
        _use_utf8()
    given = list(sys.argv[1:] if arguments is None else arguments)
    try:
        app(given, prog_name="turnwise")
    except TurnwiseError as error:
        if "--debug" in given:
            raise
        print(f"turnwise: {error}", file=sys.stderr)
        sys.exit(1)
    except OSError as error:
        if "--debug" in given or error.errno is None:  # without a number it is not the system's word
            raise
        place = f"{error.filename}: " if error.filename else ""
        print(f"turnwise: {place}{error.strerror}", file=sys.stderr)
        sys.exit(1)


def _use_utf8() -> None:
    """Start again in Python's UTF-8 mode where the locale has another encoding, so that no locale changes a thing.

    Names of files in rows, patches and repositories are UTF-8. What cannot be printed is escaped.
    """
    if not sys.flags.utf8_mode and locale.getencoding().lower() not in ("utf-8", "utf8"):
        os.environ["PYTHONUTF8"] = "1"  # for the Pythons that this one starts
        os.execv(sys.executable, [sys.executable, "-X", "utf8", *sys.orig_argv[1:]])
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper) and stream.errors == "strict":
            stream.reconfigure(errors="backslashreplace")


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
