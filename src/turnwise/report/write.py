"""Writes what a run has to show: `summary.json` for programs, `report.html` for people."""

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from turnwise.errors import InputError
from turnwise.files import write_text_whole
from turnwise.report.read import read_run
from turnwise.report.record import RunRecord


def write_report(run_dir: Path) -> None:
    """Write `summary.json` and `report.html` into the run's folder, from its journal alone; also while the run goes on.

    Each file appears whole or not at all. Raises InputError where there is no journal, or the packages that draw are
    missing (the summary is written all the same); StoreError where a file cannot be written.
    """
    run = read_run(run_dir)
    write_text_whole(run_dir / "summary.json", json.dumps(summary(run), indent=2) + "\n")
    try:
        from turnwise.report.page import render_page
    except ModuleNotFoundError as error:
        raise InputError(f"report.html needs {error.name}: pip install 'turnwise[report]'") from error
    write_text_whole(run_dir / "report.html", render_page(run))


def summary(run: RunRecord) -> Mapping[str, Any]:
    """The run in figures: an entry per stage, its wall time, ended episodes, infrastructure failures by cause.

    `verdicts` has an entry per stage and purpose: its episodes by kind of verdict, and by tripwire where suspected.
    `incomplete_patches` are episodes whose patch could not carry all of the agent's work.
    Where an endpoint was asked there is also `usage`: the tokens that it counted and their cost (None: no prices), both
    lower bounds where it did not count `uncounted_turns` of the turns.
    """
    counted = {}
    if run.usage is not None:
        more = {"cost_usd": run.cost_usd, "uncounted_turns": run.uncounted_turns}
        counted = {"usage": {**asdict(run.usage), **more}}
    return {
        "stages": [asdict(stage) for stage in run.stages],
        "wall_s": run.wall_s,
        "episodes": run.episodes,
        "infra_failures": dict(run.infra_failures),
        "verdicts": [{"stage": each.stage, "purpose": each.purpose, **asdict(each.counts)} for each in run.verdicts],
        "incomplete_patches": run.incomplete_patches,
        **counted,
    }
