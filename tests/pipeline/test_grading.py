"""Somebody else's predictions, graded for real: verdicts, what failed and is tried again, and going on after Ctrl-C."""

import io
import json
import os
import signal
from collections import Counter
from dataclasses import replace

import pytest
from rich.console import Console

from turnwise.errors import InfrastructureError, InputError, SandboxError, TaskError
from turnwise.evaluation import Prediction, match, read_score
from turnwise.pipeline.grading import grade_predictions, model_name
from turnwise.pipeline.recipe import SandboxTable
from turnwise.store import Journal
from turnwise.types import TestRun

pytestmark = pytest.mark.slow

NAMES = ("gold", "wrong", "torn", "empty", "null", "without")


class Made:
    """The small world's environment for every task, counted; `trouble` may raise instead."""

    def __init__(self, world, trouble=lambda task: None):
        self.spec, self.trouble, self.asked = world.spec, trouble, Counter()

    async def prepare(self, task):
        self.asked[task.instance_id] += 1
        self.trouble(task)
        return self.spec

    def stop(self):
        pass


class Grader:
    def __init__(self, world, folder):
        self.folder = folder
        self.tasks = [replace(world.task, instance_id=f"small__{name}-1") for name in NAMES]
        wrong = world.diff({"calc.py": "def add(a, b):\n    return 5\n"})
        patches = [world.task.patch, wrong, world.task.patch.replace("a - b", "nowhere"), "", None]
        self.predictions = [
            Prediction(instance_id=f"small__{name}-1", model_patch=patch, model_name_or_path="org/m")
            for name, patch in zip(NAMES, patches, strict=False)
        ]
        self.made = Made(world)

    def grade(self, predictions=None, **settings):
        shown = io.StringIO()
        summary = grade_predictions(
            match(predictions or self.predictions, self.tasks),
            self.tasks,
            self.folder,
            run_id="r1",
            sandbox=SandboxTable(**settings),
            console=Console(file=shown, width=200),
            environments=self.made,
        )
        return json.loads(summary.read_text())


@pytest.fixture
def grader(small_world, tmp_path):
    return Grader(small_world, tmp_path / "graded")


def test_each_patch_gets_its_verdict_and_its_files_and_is_graded_once(grader):
    summary = grader.grade()
    assert summary["resolved_ids"] == ["small__gold-1"]
    assert summary["unresolved_ids"] == ["small__wrong-1"]
    assert summary["empty_patch_ids"] == ["small__empty-1", "small__null-1"]
    assert summary["error_ids"] == ["small__torn-1"]
    assert summary["failure_reasons"] == {"small__torn-1": "patch_does_not_apply"}
    assert summary["incomplete_ids"] == ["small__without-1"]
    assert (grader.folder / "org__m.r1.json").is_file()
    report = json.loads((grader.folder / "logs" / "small__gold-1" / "report.json").read_text())
    assert report["small__gold-1"]["tests_status"]["FAIL_TO_PASS"]["success"] == ["tests/test_calc.py::test_add"]
    assert "passed" in (grader.folder / "logs" / "small__gold-1" / "test_output.txt").read_text()
    assert read_score(str(grader.folder)).result.pass_at_1 == pytest.approx(1 / 5)

    before = grader.made.asked.copy()
    assert grader.grade() == summary
    assert grader.made.asked == before


def test_another_patch_is_graded_anew_and_a_prediction_taken_back_is_gone(grader):
    grader.grade()
    before = grader.made.asked.copy()
    gold, wrong = grader.predictions[:2]
    summary = grader.grade([gold, wrong.model_copy(update={"model_patch": gold.model_patch})])
    assert summary["resolved_ids"] == ["small__gold-1", "small__wrong-1"]
    assert summary["submitted_ids"] == ["small__gold-1", "small__wrong-1"]
    assert grader.made.asked - before == {"small__wrong-1": 1}


@pytest.mark.parametrize(
    ("failure", "causes"),
    [(SandboxError("no room"), {"verification_failure": 2}), (TaskError("no Python 3.2"), {"task_failure": 1})],
)
def test_what_could_not_be_run_is_an_error_and_tried_again_the_next_time(grader, failure, causes):
    def trouble(task):
        if task.instance_id == "small__gold-1":
            raise failure

    grader.made.trouble = trouble
    summary = grader.grade(retries=1)
    assert summary["error_ids"] == ["small__gold-1", "small__torn-1"]
    assert summary["infra_failure_ids"] == ["small__gold-1"]
    assert summary["unresolved_ids"] == ["small__wrong-1"]
    assert grader.made.asked["small__gold-1"] == sum(causes.values()), "a row does not mend itself"
    with Journal.read(grader.folder / "journal.sqlite") as journal:
        assert journal.failures_by_cause() == causes
        assert str(failure) in journal.failures()[-1].detail

    grader.made.trouble = lambda task: None
    assert grader.grade(retries=1)["resolved_ids"] == ["small__gold-1"]
    assert grader.made.asked["small__wrong-1"] == 1


def test_a_row_with_an_unknown_log_parser_costs_its_own_grade_alone(grader):
    gold, *others = grader.tasks
    grader.tasks = [replace(gold, test_run=TestRun("pytest", "parse_log_nothing")), *others]
    summary = grader.grade()
    assert summary["infra_failure_ids"] == ["small__gold-1"]
    assert summary["unresolved_ids"] == ["small__wrong-1"]
    with Journal.read(grader.folder / "journal.sqlite") as journal:
        (failure,) = journal.failures()
    assert (failure.cause, failure.dropped) == ("task_failure", True)
    assert "no parser 'parse_log_nothing'" in failure.detail


def test_nothing_gradable_is_told_with_the_reason(grader):
    def trouble(task):
        raise SandboxError("no room on the disk")

    grader.made.trouble = trouble
    with pytest.raises(InfrastructureError, match=r"none of 2 predictions could be graded.*no room on the disk"):
        grader.grade(grader.predictions[:2], retries=0)


def test_a_stop_by_ctrl_c_leaves_the_verdicts_there_were(grader):
    def interrupt(task):
        if task.instance_id == "small__wrong-1" and grader.made.asked["small__gold-1"]:
            os.kill(os.getpid(), signal.SIGINT)

    grader.made.trouble = interrupt
    with pytest.raises(KeyboardInterrupt):
        grader.grade(verifications=1)
    grader.made.trouble = lambda task: None
    summary = grader.grade(verifications=1)
    assert summary["resolved_ids"] == ["small__gold-1"]
    assert grader.made.asked["small__gold-1"] == 1


def test_another_task_set_or_other_limits_are_refused_in_the_same_folder(grader):
    grader.grade(grader.predictions[:1])
    with pytest.raises(InputError, match="folder of its own"):
        grader.grade(grader.predictions[:1], memory_mb=4096)
    grader.tasks.pop()
    with pytest.raises(InputError, match="folder of its own"):
        grader.grade(grader.predictions[:1])


def test_the_models_name():
    rows = [Prediction(instance_id=str(n), model_name_or_path=name) for n, name in enumerate(["a", "a", "b", None])]
    assert model_name(rows[:2]) == "a"
    assert model_name(rows[:3]) == "mixed"
    assert model_name(rows[3:]) == "unnamed"
