"""Our own rows: both kinds of environment, compact, and strict where a task needs it."""

import json
from dataclasses import replace

import pytest

from turnwise.errors import TaskError
from turnwise.tasks.formats import row, task_of
from turnwise.types import Checkout, Installation, SourceDistribution, Task, TestRun

EVERYTHING = Checkout(
    Installation("3.9", ("a",), "b==1\n", ("c.txt",), "name: d\n", ("e.yml",), ("f",), ("g",), {"H": "i"}),
    image="j",
    workdir="/k",
    setup_patch="l",
)
TASK = Task("id", "a/b", "a" * 40, "p", "t", "s", ("x",), ("y",), SourceDistribution("p", "1", "b" * 64))


def _written(task):
    return json.loads(json.dumps(row(task)))


@pytest.mark.parametrize(
    "task",
    [
        TASK,
        replace(TASK, environment=SourceDistribution("p", "1", "b" * 64, ("r",), ("src",))),
        replace(TASK, environment=Checkout()),
        replace(TASK, environment=EVERYTHING, base_commit="HEAD", test_patch="", pass_to_pass=()),
        replace(TASK, environment=EVERYTHING, test_run=TestRun("pytest", "parse_log_pytest", "fail_only")),
        replace(TASK, hints_text="h", created_at="c", version="v", environment_setup_commit="e", meta={"k": [1, None]}),
    ],
)
def test_a_written_row_gives_the_task_again(task):
    assert task_of(_written(task)) == task


def test_only_what_is_set_is_written():
    assert _written(replace(TASK, environment=Checkout(image="j")))["environment"] == {"kind": "checkout", "image": "j"}


def test_a_row_from_before_there_were_kinds_is_of_a_source_distribution():
    old = _written(TASK)
    del old["environment"]["kind"], old["test_run"]
    assert task_of(old) == TASK


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"test_patch": ""}, "field 'test_patch': should not be empty"),
        ({"base_commit": "HEAD"}, "field 'base_commit': should be a whole commit hash"),
        ({"environment": {"kind": "image"}}, "field 'environment'"),
        ({"test_run": {"command": "pytest"}}, r"field 'test_run\.log_parser'"),
        ({"environment": {"kind": "checkout", "image": 1}}, r"field 'environment\.image'"),
    ],
)
def test_faults_are_named(change, message):
    with pytest.raises(TaskError, match=message):
        task_of(_written(TASK) | change)
