"""The command as a shell sees it: help without torch, one line for an error, and the verbs that need no model."""

import json
import os
import re
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from turnwise.config import claim_run_folder, load_recipe
from turnwise.evaluation import StageResult
from turnwise.pipeline.run import recipe_hash
from turnwise.store import EpisodeKey, Journal
from turnwise.tasks import read_tasks, write_tasks
from turnwise.types import StopReason, Verdict, VerdictKind

pytestmark = pytest.mark.slow

RECIPE = """
[run]
name = "done"
[model]
checkpoint = "model"
[evaluation]
points = ["base"]
runs = 1
k = 1
"""


@pytest.fixture
def turnwise(tmp_path):
    """Run the command in an empty folder."""

    def run(*arguments: object) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "turnwise.cli", *map(str, arguments)]
        environment = {**os.environ, "COLUMNS": "200", "NO_COLOR": "1"}
        return subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)

    return run


@pytest.fixture
def task_file(small_world, tmp_path) -> Path:
    environment = replace(small_world.task.environment, sha256="0" * 64)
    task = replace(small_world.task, environment=environment, meta={"split": "train", "kind": "arithmetic"})
    write_tasks(tmp_path / "tasks.jsonl", [task])
    return tmp_path / "tasks.jsonl"


@pytest.fixture
def finished(tmp_path) -> Path:
    """The folder of a finished run that only evaluated one task once."""
    (tmp_path / "recipe.toml").write_text(RECIPE)
    run_dir = tmp_path / "runs" / "done"
    recipe = load_recipe(tmp_path / "recipe.toml")
    claim_run_folder(recipe, run_dir)
    key = EpisodeKey("base", "evaluate", 0, "small__calc-1", 0)
    with Journal.open(run_dir / "journal.sqlite", recipe_hash(recipe)) as journal:
        journal.start_episode(key, [1, 2], [("user", "It is broken.")])
        journal.finish_episode(key, StopReason.SUBMITTED, "diff")
        journal.record_verdict("small__calc-1", "diff", Verdict(VerdictKind.RESOLVED))
        journal.record_rewards(key, {"resolved": 1.0})
        figures = StageResult("base", 1.0, None, 1.0, 1, 1, 1, 1.0, 0.0, 0.0)
        journal.record_evaluation("base", 0, asdict(figures))
        journal.set_state("run", "finished", True)
    return run_dir


def test_verdicts_and_patches_to_look_at_are_told_in_a_line_each(turnwise, finished, tmp_path):
    ordinary = turnwise("report", str(finished))
    assert "verdicts to look at" not in ordinary.stdout
    assert "left_out" not in ordinary.stdout
    key = EpisodeKey("base", "evaluate", 0, "small__calc-1", 0)
    with Journal.open(finished / "journal.sqlite", recipe_hash(load_recipe(finished / "recipe.toml"))) as journal:
        journal.finish_episode(key, StopReason.SUBMITTED, "other", left_out=["pipe: no file"])
        journal.record_verdict("small__calc-1", "other", Verdict(VerdictKind.SUSPECTED, rules=("frames",)))

    shown = turnwise("report", str(finished))
    assert "verdicts to look at: base evaluate: 1 suspected (frames 1)\n" in shown.stdout
    assert "patches: 1 without all of the agent's work (`left_out`)\n" in shown.stdout
    exported = turnwise("export", str(finished), "--format", "preds", "--out", str(tmp_path / "preds.json"))
    assert exported.stdout.rstrip().endswith("preds.json; 1 without all of the agent's work (`left_out`)")


def test_quickstart_finds_its_recipe_in_the_checkout(turnwise):
    refused = turnwise("quickstart", "--set", "run.nonsense=1")
    assert refused.returncode == 1
    assert "run.nonsense" in refused.stderr


@pytest.mark.parametrize("arguments", ["--help", "train --help", "tasks make --help", "--version", "tasks list --help"])
def test_help_loads_nothing_heavy(arguments):
    probe = (
        "import sys\nfrom turnwise.cli import main\n"
        f"try:\n    main({arguments.split()})\nexcept SystemExit as leaving:\n    assert not leaving.code\n"
        "print(sorted(set(sys.modules) & {'torch', 'transformers', 'matplotlib', 'pyarrow'}))"
    )
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True)
    assert done.stdout.strip().endswith("[]")
    assert len(done.stdout.splitlines()) > 1


def test_an_error_is_one_line_and_exit_code_1(turnwise):
    done = turnwise("train", "absent.toml")
    assert (done.returncode, done.stderr) == (1, "turnwise: absent.toml: no such recipe file\n")
    assert "Traceback" in turnwise("--debug", "train", "absent.toml").stderr


def test_a_wrong_override_names_the_key_before_anything_heavy_starts(turnwise, tmp_path):
    (tmp_path / "recipe.toml").write_text(RECIPE)
    done = turnwise("train", "recipe.toml", "--set", "evaluation.rnus=3")
    assert done.returncode == 1
    assert done.stderr == "turnwise: --set: evaluation.rnus: unknown key; did you mean 'runs'?\n"
    assert not (tmp_path / "runs").exists()


def test_tasks_are_listed_and_shown_without_their_solution(turnwise, task_file):
    listed = turnwise("tasks", "list", task_file)
    assert "small__calc-1" in listed.stdout
    assert "1 tasks, 1 train" in listed.stdout
    shown = turnwise("tasks", "show", "small__calc-1", task_file).stdout
    assert "add(2, 3) gives -1" in shown
    assert "a + b" not in shown
    assert "a + b" in turnwise("tasks", "show", "small__calc-1", task_file, "--solution").stdout
    assert "no task is called 'other'" in turnwise("tasks", "show", "other", task_file).stderr


def test_making_tasks_leaves_an_existing_file_alone(turnwise, task_file):
    before = task_file.read_bytes()
    done = turnwise("tasks", "make", "toolz", "--out", task_file)
    assert done.returncode == 1
    assert "exists already" in done.stderr
    assert task_file.read_bytes() == before


def test_a_finished_run_says_so_and_shows_its_table(turnwise, finished):
    done = turnwise("train", "recipe.toml")
    assert done.returncode == 0, done.stderr
    assert "is finished" in done.stdout
    assert "100.0" in done.stdout
    assert json.loads((finished / "summary.json").read_text())["stages"][0]["name"] == "base"
    assert (finished / "report.html").is_file()


def test_a_different_recipe_in_the_folder_is_refused(turnwise, finished):
    done = turnwise("train", "recipe.toml", "--set", "evaluation.runs=2")
    assert done.returncode == 1
    assert "evaluation.runs: 1 → 2" in done.stderr


def test_report_and_export_read_the_journal(turnwise, finished, tmp_path):
    assert "100.0" in turnwise("report", finished).stdout
    assert turnwise("export", finished, "--out", "episodes.jsonl").returncode == 0
    assert len((tmp_path / "episodes.jsonl").read_text().splitlines()) == 1
    assert turnwise("export", finished, "--out", "preds.json", "--format", "preds").returncode == 0
    assert json.loads((tmp_path / "preds.json").read_text())["small__calc-1"]["model_patch"] == "diff"


def test_a_folder_without_a_run_is_named(turnwise):
    done = turnwise("report", "nowhere")
    assert (done.returncode, "nowhere" in done.stderr) == (1, True)


def test_eval_takes_the_scaffold_of_a_recipe_and_names_a_missing_checkpoint(turnwise, finished, task_file):
    done = turnwise("eval", "--model", "./nothing", "--tasks", task_file, "--split", "*", "--recipe", "recipe.toml")
    assert done.returncode == 1
    assert "nothing" in done.stderr
    kept = load_recipe(finished.parent / "eval-nothing" / "recipe.toml")
    assert kept.tasks.path == str(task_file)
    assert kept.stages == ()


def test_eval_of_an_endpoint_names_what_is_wrong(turnwise):
    assert (
        "--api-key-env has no effect without --endpoint"
        in turnwise("eval", "--model", "m", "--api-key-env", "K").stderr
    )
    local = ("eval", "--model", "m", "--endpoint", "http://127.0.0.1:9/v1", "--limit", "1", "--runs", "1")
    assert "run.seed: has no effect" in turnwise(*local, "--seed", "3").stderr
    assert "environment variable ABSENT_KEY is not set" in turnwise(*local, "--api-key-env", "ABSENT_KEY").stderr


def test_verify_reports_what_it_cannot_grade_and_compare_reads_it(turnwise, task_file, tmp_path):
    rows = [{"instance_id": "small__calc-1", "model_patch": ""}, {"instance_id": "other__other-1"}]
    (tmp_path / "preds.json").write_text(json.dumps(rows))
    done = turnwise("verify", "preds.json", "--tasks", task_file, "--out", "graded", "--run-id", "r1")
    assert done.returncode == 0, done.stderr
    assert "1 predictions are for no task of this set and are left out: other__other-1" in done.stderr
    assert "2 predictions hold no patch" in done.stderr
    assert json.loads((tmp_path / "graded" / "unnamed.r1.json").read_text())["empty_patch_ids"] == ["small__calc-1"]
    again = turnwise("verify", "preds.json", "--tasks", task_file, "--out", "graded", "--set", "run.seed=1")
    assert "run.seed: has no effect here" in again.stderr

    compared = turnwise("compare", "graded", "graded:predictions", "--json")
    assert compared.returncode == 0, compared.stderr
    told = json.loads(compared.stdout)
    assert [each["resolved"] for each in told["evaluations"]] == [0, 0]
    assert told["paired_difference"] == {"mean": 0.0, "sem": None, "tasks": 1}


@pytest.mark.parametrize(
    "arguments",
    [
        ("tasks", "convert", "tasks.jsonl", "--out", "tasks.jsonl/new"),
        ("tasks", "validate", "tasks.jsonl", "--out", "tasks.jsonl/new"),
        ("verify", "preds.json", "--tasks", "tasks.jsonl", "--out", "tasks.jsonl/new"),
        ("eval", "--model", "m", "--tasks", "tasks.jsonl", "--run-dir", "tasks.jsonl/new"),
    ],
    ids=" ".join,
)
def test_what_the_system_refuses_is_one_line_that_names_the_file(turnwise, task_file, arguments):
    (task_file.parent / "preds.json").write_text('[{"instance_id": "small__calc-1"}]')
    done = turnwise(*arguments)
    assert done.returncode == 1
    assert re.fullmatch(r"turnwise: .*tasks\.jsonl.*: (File exists|Not a directory)", done.stderr.splitlines()[-1])
    assert "Traceback" not in done.stderr
    assert "Traceback" in turnwise("--debug", *arguments).stderr


def test_a_selection_alone_is_graded(turnwise, task_file, tmp_path):
    (task,) = read_tasks(task_file)
    write_tasks(tmp_path / "three.jsonl", [replace(task, instance_id=f"small__calc-{n}") for n in "123"])
    (tmp_path / "preds.jsonl").write_text('{"instance_id": "small__calc-1"}\n{"instance_id": "small__calc-3"}\n')
    done = turnwise("verify", "preds.jsonl", "--tasks", "three.jsonl", "--select", "[12]$", "--out", "graded")
    assert done.returncode == 0, done.stderr
    summary = json.loads((tmp_path / "graded" / "unnamed.preds.json").read_text())
    assert (summary["total_instances"], summary["submitted_ids"]) == (2, ["small__calc-1"])


@pytest.mark.parametrize("verb", [("verify", "preds.json"), ("eval", "--model", "model")], ids=lambda verb: verb[0])
def test_a_selection_that_the_tasks_lack_is_refused_by_their_file(turnwise, task_file, verb):
    (task_file.parent / "preds.json").write_text('[{"instance_id": "small__calc-1"}]')
    done = turnwise(*verb, "--tasks", "tasks.jsonl", "--select", "verified-50")
    told = "tasks.jsonl: 50 of the 50 tasks of verified-50 are not here: django__django-10880"
    assert (done.returncode, told in done.stderr) == (1, True), done.stderr


def test_verify_without_a_common_task_is_refused(turnwise, task_file, tmp_path):
    (tmp_path / "preds.jsonl").write_text('{"instance_id": "other__other-1"}')
    done = turnwise("verify", "preds.jsonl", "--tasks", task_file)
    assert (done.returncode, "no prediction is for a task of" in done.stderr) == (1, True)
    assert not (tmp_path / "runs").exists()


def test_compare_shows_a_table_and_refuses_other_tasks(turnwise, finished, task_file, tmp_path):
    shown = turnwise("compare", finished, f"{finished}:base")
    assert shown.returncode == 0, shown.stderr
    assert "1 of 1" in shown.stdout
    assert "+0.0 points, paired over 1 tasks" in shown.stdout
    (tmp_path / "preds.json").write_text('[{"instance_id": "small__calc-2"}]')
    task_file.write_text(task_file.read_text().replace("small__calc-1", "small__calc-2"))
    assert turnwise("verify", "preds.json", "--tasks", task_file, "--out", "other").returncode == 0
    refused = turnwise("compare", finished, "other")
    assert (refused.returncode, "only in other: small__calc-2" in refused.stderr) == (1, True)
