import json
import re
from dataclasses import asdict

import pytest

from turnwise.errors import InputError
from turnwise.report import write_report
from turnwise.store import Journal


def test_the_summary_has_the_promised_shape(finished_run):
    run_dir, results = finished_run
    summary = json.loads((run_dir / "summary.json").read_text())
    assert summary == {
        "stages": [asdict(result) for result in results],
        "wall_s": 1503.2,
        "episodes": 4 * 24 + 6 + 9 + 6 * 12 + 2 + 1,
        "infra_failures": {"sandbox_failure": 2},
        "verdicts": summary["verdicts"],
        "incomplete_patches": 1,
    }
    places = [(each["stage"], each["purpose"]) for each in summary["verdicts"]]
    assert places == [
        *[("base", "evaluate"), ("rft", "collect"), ("rft", "evaluate")],
        *[("rl-1", "train"), ("rl-1", "evaluate"), ("rl-2", "train"), ("rl-2", "evaluate")],
    ]
    assert [sum(each["verdicts"].values()) for each in summary["verdicts"]] == [24, 9, 24, 50, 30, 25, 24]
    assert summary["verdicts"][3]["verdicts"] == {"resolved": 31, "suspected": 2, "empty_patch": 17}
    assert summary["verdicts"][5]["verdicts"]["infrastructure_failure"] == 1
    tripwires = [each["tripwires"] for each in summary["verdicts"]]
    assert tripwires == [{}, {}, {}, {"frames": 2, "interpreter": 1}, {}, {}, {}]
    assert [stage["name"] for stage in summary["stages"]] == ["base", "rft", "rl-1", "rl-2"]
    assert list(summary["stages"][0]) == [
        *("name", "pass_at_1", "sem", "pass_at_k", "k", "runs", "tasks"),
        *("submit_rate", "mean_turns", "format_error_rate", "scored", "asked", "verdicts", "tripwires"),
    ]


def test_the_page_needs_nothing_from_outside(finished_run):
    run_dir, _ = finished_run
    page = (run_dir / "report.html").read_text()
    references = re.findall(r'(?:src|href)="([^"]*)"|url\(([^)]*)\)', page)
    outside = [target for pair in references for target in pair if target and not target.startswith(("#", "data:"))]
    assert outside == []
    assert "<script" not in page
    assert "@import" not in page


def test_what_the_model_wrote_stays_text(finished_run):
    run_dir, _ = finished_run
    page = (run_dir / "report.html").read_text()
    assert "&lt;script&gt;document.title" in page
    assert "\N{SNOWMAN}" in page


def test_the_same_journal_gives_the_same_page(finished_run):
    run_dir, _ = finished_run
    first = (run_dir / "report.html").read_bytes()
    write_report(run_dir)
    assert (run_dir / "report.html").read_bytes() == first


def test_a_run_that_has_only_begun_has_a_report(tmp_path):
    with Journal.open(tmp_path / "journal.sqlite", recipe_hash="r"):
        write_report(tmp_path)  # the run is still being written
    assert json.loads((tmp_path / "summary.json").read_text()) == {
        "stages": [],
        "wall_s": 0.0,
        "episodes": 0,
        "infra_failures": {},
        "verdicts": [],
        "incomplete_patches": 0,
    }
    assert "No evaluation has ended yet" in (tmp_path / "report.html").read_text()


def test_a_folder_without_a_run_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"journal\.sqlite does not exist"):
        write_report(tmp_path)
    assert list(tmp_path.iterdir()) == []
