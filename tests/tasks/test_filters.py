"""The paper's filters at their bounds, and the funnel that counts them."""

import json

import pytest

from turnwise.errors import TaskError
from turnwise.tasks.filters import Filter, Step, funnel, paper_filters
from turnwise.tasks.verdicts import read_verdicts
from turnwise.types import Checkout, Task

FILTERS = ("diff", "references", "files", "lines", "score", "flaky", "gate")


def _patch(files=1, lines=2):
    """A patch of so many files that changes so many lines, all but one a file in the first."""
    counts = [lines - files + 1] + [1] * (files - 1)
    return "".join(
        f"--- a/f{n}\n+++ b/f{n}\n@@ -1,0 +1,{count} @@\n" + "+x\n" * count for n, count in enumerate(counts)
    )


def _task(name="a", patch=None, **meta):
    return Task(name, "a/b", "c" * 40, patch or _patch(), "t", "s", ("x",), (), Checkout(), meta=meta)


def _dropped_by(task, verdicts=None, **bounds):
    """The filter that drops a task, or None."""
    steps = funnel([task], paper_filters(**bounds, verdicts=verdicts)).steps
    names = FILTERS[: len(steps)]
    return next((name for name, step in zip(names, steps, strict=True) if step.dropped), None)


@pytest.mark.parametrize(
    ("task", "dropped"),
    [
        (_task(), None),
        (_task(patch="@@ -1 +1 @@\n"), "diff"),
        (_task(patch="Change the sign in calc.py."), "diff"),
        (_task(patch=_patch(files=7, lines=7)), None),
        (_task(patch=_patch(files=8, lines=8)), "files"),
        (_task(patch=_patch(lines=499)), None),
        (_task(patch=_patch(lines=500)), "lines"),
        (_task(llm_score={"difficulty_score": 2, "test_score": 2.9}), None),
        (_task(llm_score={"difficulty_score": 0, "test_score": 3}), "score"),
        (_task(llm_score={"difficulty_score": None}), None),
        (_task(llm_score="unknown"), None),
        (_task(errors={"before": ["AttributeError"]}), "references"),
        (_task(errors=["ImportError", "x"]), "references"),
        (_task(mutated="    except ImportError:\n"), None),
    ],
)
def test_what_a_row_says_at_the_papers_bounds(task, dropped):
    assert _dropped_by(task) == dropped


def test_bounds_can_be_moved():
    assert _dropped_by(_task(patch=_patch(files=2)), max_files=1) == "files"
    assert _dropped_by(_task(patch=_patch(lines=5)), max_lines=5) == "lines"
    assert _dropped_by(_task(llm_score={"a": 1}), max_llm_score=1) == "score"
    assert _dropped_by(_task(), max_llm_score=0) is None  # a task without scores has none that is too high


@pytest.mark.parametrize(
    ("line", "dropped"),
    [
        ({"admitted": True}, None),
        ({"admitted": True, "flaky": ["t"]}, "flaky"),
        ({"admitted": False, "reason": "the gold patch scores 0"}, "gate"),
        ({"admitted": False, "reason": "x fails before: ModuleNotFoundError: No module named 'y'"}, "references"),
        (None, "gate"),
    ],
)
def test_what_the_gate_says(tmp_path, line, dropped):
    path = tmp_path / "verdicts.jsonl"
    path.write_text(json.dumps({"instance_id": "a"} | line) + "\n" if line else "")
    assert _dropped_by(_task(), read_verdicts(path)) == dropped


def test_a_funnel_counts_a_task_once_where_it_is_dropped():
    tasks = [_task("a"), _task("b"), _task("c")]
    filters = [Filter("not a", lambda task: task.instance_id != "a"), Filter("is c", lambda task: task is tasks[2])]
    passed = funnel(tasks, filters)
    assert passed.tasks == (tasks[2],)
    assert passed.steps == (Step("not a", ("a",), 2), Step("is c", ("b",), 1))


def test_the_last_verdict_on_a_task_holds(tmp_path):
    path = tmp_path / "verdicts.jsonl"
    path.write_text('{"instance_id": "a", "admitted": false, "gold": true}\n\n{"instance_id": "a", "admitted": true}\n')
    assert [verdict.admitted for verdict in read_verdicts(path).values()] == [True]


def test_faulty_verdicts_are_named(tmp_path):
    path = tmp_path / "verdicts.jsonl"
    path.write_text('{"instance_id": "a", "admitted": true}\n{"instance_id": "b"}\n')
    with pytest.raises(TaskError, match=r"verdicts\.jsonl:2: field 'admitted': Field required"):
        read_verdicts(path)
    with pytest.raises(TaskError, match=r"absent\.jsonl: cannot be read .*; `turnwise tasks validate` writes it"):
        read_verdicts(tmp_path / "absent.jsonl")
