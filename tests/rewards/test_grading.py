"""Grades are swebench's own."""

from dataclasses import replace

import pytest
from swebench.harness.grading import get_eval_report
from swebench.types import TestSpec

from turnwise.errors import InputError
from turnwise.rewards.grading import Grader, whole_log
from turnwise.rewards.record import Record
from turnwise.types import TestRun

IDS = ("t.py::a", "t.py::b[x")
KEPT = ("t.py::c",)


@pytest.fixture
def task(small_world):
    run = TestRun("pytest -rA t.py", "parse_log_pytest")
    return replace(small_world.task, fail_to_pass=IDS, pass_to_pass=KEPT, test_run=run)


def official(task, log, tmp_path) -> bool:
    path = tmp_path / "log.txt"
    path.write_text(log)
    run = task.test_run
    lists = list(task.fail_to_pass), list(task.pass_to_pass)
    spec = TestSpec(task.instance_id, "", [], task.repo, "", *lists, run.log_parser, run.eval_type)
    prediction = {"instance_id": task.instance_id, "model_name_or_path": "m", "model_patch": "p"}
    return get_eval_report(spec, prediction, str(path), False)[task.instance_id]["resolved"]


@pytest.mark.parametrize("eval_type", ["pass_and_fail", "fail_only"])
@pytest.mark.parametrize(
    ("output", "code"),
    [
        ("PASSED t.py::a\nPASSED t.py::b[x y]\nPASSED t.py::c", 0),
        ("XFAIL t.py::a\nPASSED t.py::b[x y]\nSKIPPED t.py::c", 0),
        ("SKIPPED t.py::a\nPASSED t.py::b[x y]\nPASSED t.py::c", 0),
        ("PASSED t.py::a\nPASSED t.py::b[x y]", 0),
        ("PASSED t.py::a\nPASSED t.py::b[x1]\nFAILED t.py::b[x2] - E\nPASSED t.py::c", 1),
        ("PASSED t.py::a\nFAILED t.py::b[x y] - E\nPASSED t.py::c", 1),
        ("PASSED t.py::a\nPASSED t.py::b[x y]\nERROR t.py::c", 1),
        ("PASSED t.py::a\nPASSED t.py::b[x y]\nPASSED t.py::c", 1),
        ("nothing ran", 2),
        (">>>>> Tests Errored\nPASSED t.py::a\nPASSED t.py::b[x y]\nPASSED t.py::c", 0),
    ],
)
def test_a_grade_is_swebenchs(task, tmp_path, output, code, eval_type):
    task = replace(task, test_run=replace(task.test_run, eval_type=eval_type))
    log = whole_log(output, code)

    assert Grader(task, task.test_run).of_log(log).resolved == official(task, log, tmp_path)


def test_outcomes_by_test(task):
    log = whole_log("XFAIL t.py::a\nFAILED t.py::b[x y] - why\nSKIPPED t.py::c", 1)

    grade = Grader(task, task.test_run).of_log(log)

    assert grade.outcomes == {"t.py::a": "xfailed", "t.py::b[x": "failed", "t.py::c": "skipped"}
    assert grade.satisfied == {"t.py::a", "t.py::c"}


def test_structured_outcomes_are_graded_under_the_parsers_names(task):
    outcomes = {"t.py::a": "passed", "t.py::b[x y]": "passed"}
    worse = {**outcomes, "t.py::b[x z]": "failed", "t.py::c": "skipped"}

    grader = Grader(task, task.test_run)

    assert grader.of_record(Record(outcomes)).satisfied == set(IDS)
    assert grader.of_record(Record(worse)).satisfied == {"t.py::a", "t.py::c"}


@pytest.mark.parametrize("line", ["ERROR:", "FAIL:"])
def test_a_line_at_which_the_parser_breaks_resolves_nothing(task, line):
    run = TestRun("./tests/runtests.py", "parse_log_django")
    grader = Grader(task, run)

    grade = grader.of_log(whole_log(f"test_a (t.A) ... ok\n{line}\n", 0))

    assert (grade.resolved, grade.found, grade.satisfied) == (False, False, frozenset())
    assert grader.of_record(Record({line: "passed"})).satisfied == frozenset()


@pytest.mark.parametrize(
    ("run", "field"),
    [
        (TestRun("pytest", "parse_log_nonsense"), "log_parser"),
        (TestRun("pytest", "parse_log_pytest", "nonsense"), "eval_type"),
    ],
)
def test_what_swebench_does_not_know_is_refused(task, run, field):
    with pytest.raises(InputError, match=f"small__calc-1: {field}"):
        Grader(task, run)
