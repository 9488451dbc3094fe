"""The files of an evaluation, against swebench's own reading of them."""

import json
import shutil

import pytest

from turnwise.evaluation import Graded, write_grades, write_outputs
from turnwise.evaluation.outputs import instance_report, run_summary
from turnwise.store import EpisodeKey, Journal
from turnwise.types import StopReason, Verdict, VerdictKind

PATCH = "diff --git a/a.py b/a.py\n"
PASSED, FAILED = {"t.py::a": "passed"}, {"t.py::a": "failed", "t.py::b": "missing"}
KEPT = {"t.py::c": "passed", "t.py::d": "skipped", "t.py::e": "error"}
GRADED = [
    Graded("r__resolved-1", PATCH, Verdict(VerdictKind.RESOLVED, PASSED, {}, "1 passed")),
    Graded("r__unresolved-1", PATCH, Verdict(VerdictKind.UNRESOLVED, FAILED, KEPT, "2 failed")),
    Graded("r__empty-1", "", Verdict(VerdictKind.EMPTY_PATCH)),
    Graded("r__refused-1", PATCH, Verdict(VerdictKind.PATCH_DOES_NOT_APPLY, log="error: patch failed")),
    Graded("r__slow-1", PATCH, Verdict(VerdictKind.TESTS_TIMED_OUT, FAILED, KEPT)),
    Graded("r__unlucky-1", PATCH, None, "verification_failure", "no room"),
    Graded("r__unluckier-1", "", None, "sandbox_failure"),
]
TASKS = [*(each.instance_id for each in GRADED), "r__never-1"]


def test_every_instance_is_in_its_place():
    summary = run_summary(GRADED, TASKS)
    assert summary["resolved_ids"] == ["r__resolved-1"]
    assert summary["unresolved_ids"] == ["r__unresolved-1"]
    assert summary["empty_patch_ids"] == ["r__empty-1"]
    assert summary["incomplete_ids"] == ["r__never-1"]
    assert summary["error_ids"] == ["r__refused-1", "r__slow-1", "r__unluckier-1", "r__unlucky-1"]
    assert summary["infra_failure_ids"] == ["r__unluckier-1", "r__unlucky-1"]
    assert summary["ambiguous_failure_ids"] == ["r__slow-1"]
    assert summary["failure_reasons"] == {
        "r__refused-1": "patch_does_not_apply",
        "r__slow-1": "tests_timed_out",
        "r__unluckier-1": "sandbox_failure",
        "r__unlucky-1": "verification_failure: no room",
    }
    assert summary["total_instances"] == summary["submitted_instances"] + len(summary["incomplete_ids"]) == 8
    parts = ("completed_instances", "empty_patch_instances", "error_instances")
    assert sum(summary[part] for part in parts) == summary["submitted_instances"]


def test_the_summary_is_what_swebench_makes_of_the_same_reports(tmp_path, monkeypatch):
    """swebench reads our `logs/`, less the reports of errors, which its own runs leave unwritten."""
    from swebench.harness.reporting import make_run_report

    written = write_grades(tmp_path / "ours", GRADED, TASKS, model_name="org/model", run_id="r1")
    ours = json.loads(written.read_text())
    monkeypatch.chdir(tmp_path)
    logs = tmp_path / "logs" / "run_evaluation" / "r1" / "org__model"
    shutil.copytree(tmp_path / "ours" / "logs", logs)
    for each in ours["error_ids"]:
        (logs / each / "report.json").unlink()
    predictions = {
        each.instance_id: {"instance_id": each.instance_id, "model_name_or_path": "org/model", "model_patch": "x"}
        for each in GRADED
    }
    predictions["r__empty-1"]["model_patch"] = ""
    rows = [{"instance_id": each} for each in TASKS]
    theirs = json.loads(make_run_report(predictions, rows, "r1", report_dir="theirs").read_text())

    assert written.name == "org__model.r1.json"
    assert list(ours) == list(theirs)
    why = ("infra_failure_instances", "infra_failure_ids", "ambiguous_failure_instances", "ambiguous_failure_ids")
    for key in ours.keys() - {*why, "failure_reasons"}:  # theirs guess these from logs; ours know
        assert ours[key] == theirs[key], key


def test_a_report_has_swebenchs_shape():
    (unresolved,) = instance_report(GRADED[1]).values()
    assert unresolved == {
        "patch_is_None": False,
        "patch_exists": True,
        "patch_successfully_applied": True,
        "resolved": False,
        "infra_failure": False,
        "tests_status": {
            "FAIL_TO_PASS": {"success": [], "failure": ["t.py::a", "t.py::b"]},
            "PASS_TO_PASS": {"success": ["t.py::c", "t.py::d"], "failure": ["t.py::e"]},
            "FAIL_TO_FAIL": {"success": [], "failure": []},
            "PASS_TO_FAIL": {"success": [], "failure": []},
        },
    }
    (empty,) = instance_report(GRADED[2]).values()
    assert (empty["patch_is_None"], empty["patch_exists"], "tests_status" in empty) == (True, False, False)
    (refused,) = instance_report(GRADED[3]).values()
    assert (refused["patch_exists"], refused["patch_successfully_applied"]) == (True, False)
    (unlucky,) = instance_report(GRADED[5]).values()
    assert (unlucky["infra_failure"], unlucky["infra_failure_reason"]) == (True, "verification_failure")
    assert unlucky["infra_failure_detail"] == "no room"


@pytest.mark.parametrize(
    ("model", "name"),
    [
        ("org/model", "org__model.r1.json"),
        ("../../x\x00y\n", "..__..__x-y-.r1.json"),
        ("m" * 300, "m" * 100 + ".r1.json"),
        ("模" * 300, "模" * 33 + ".r1.json"),
        ("a\ud800", "a.r1.json"),
        ("..", "...r1.json"),
    ],
)
def test_whatever_a_model_is_called_the_summary_finds_a_place(tmp_path, model, name):
    assert write_grades(tmp_path, GRADED, TASKS, model_name=model, run_id="r1") == tmp_path / name
    assert (tmp_path / name).is_file()


@pytest.fixture
def journal(tmp_path):
    with Journal.open(tmp_path / "journal.sqlite", "r") as journal:
        yield journal


def end(journal, run, task, patch, reason=StopReason.SUBMITTED, stage="base"):
    key = EpisodeKey(stage, "evaluate", 0, task, run)
    journal.start_episode(key, ())
    journal.finish_episode(key, reason, patch)


def test_the_last_evaluation_is_written_one_folder_a_run(journal, tmp_path):
    journal.record_verdict("r__a-1", PATCH, Verdict(VerdictKind.RESOLVED, PASSED, {}, "1 passed"))
    end(journal, 0, "r__a-1", PATCH, stage="rft")
    end(journal, 0, "r__a-1", PATCH)
    end(journal, 0, "r__b-1", "", StopReason.SANDBOX_FAILURE)
    end(journal, 1, "r__a-1", "")
    summaries = write_outputs(journal, tmp_path, model_name="m", run_id="r1")
    assert summaries == [tmp_path / "runs" / run / "m.r1.json" for run in "01"]
    first, second = (json.loads(path.read_text()) for path in summaries)
    assert (first["resolved_ids"], first["error_ids"], first["incomplete_ids"]) == (["r__a-1"], ["r__b-1"], [])
    assert (second["submitted_ids"], second["incomplete_ids"]) == (["r__a-1"], ["r__b-1"])
    place = tmp_path / "runs" / "0"
    assert list(json.loads((place / "preds.json").read_text())) == ["r__a-1"]
    assert (place / "logs" / "r__a-1" / "test_output.txt").read_text() == "1 passed"
    assert (place / "logs" / "r__a-1" / "patch.diff").read_text() == PATCH
    assert sorted(path.name for path in (place / "trajs").iterdir()) == ["r__a-1.traj", "r__b-1.traj"]


def test_swebench_reads_the_predictions(journal, tmp_path):
    from swebench.harness.utils import get_predictions_from_file

    end(journal, 0, "r__b-1", PATCH)
    end(journal, 0, "r__a-1", "", StopReason.TURN_LIMIT)
    write_outputs(journal, tmp_path, model_name="org/m", run_id="r1")
    assert get_predictions_from_file(str(tmp_path / "preds.json"), "unused", "unused") == [
        {"instance_id": "r__a-1", "model_name_or_path": "org/m", "model_patch": ""},
        {"instance_id": "r__b-1", "model_name_or_path": "org/m", "model_patch": PATCH},
    ]


def test_without_an_evaluation_nothing_is_written(journal, tmp_path):
    assert write_outputs(journal, tmp_path, model_name="m", run_id="r1") == []
    assert not (tmp_path / "preds.json").exists()
