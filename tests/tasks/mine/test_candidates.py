"""Which commits become candidates, and what their rows hold."""

import shutil
from datetime import date

import pytest

from turnwise.tasks.mine import Rules, find_candidates, open_history
from turnwise.tasks.mine.candidates import says_fix
from turnwise.tasks.mine.commits import Change, Commit
from turnwise.types import Checkout


def found(folder, tries=0, **rules):
    history, tip = open_history(folder, "HEAD")
    return find_candidates(history, tip, "acme/calc", Rules(**rules), tries)


def ids(prospects):
    return [candidate.task.instance_id for candidate in prospects.candidates]


def test_the_funnel_names_what_each_step_drops(past):
    prospects = found(past.folder)
    assert prospects.commits == 7
    names = {commit: word for word, commit in past.commits.items()}
    assert [(step.name, [names[one] for one in step.dropped], step.left) for step in prospects.steps] == [
        ("touch source and tests", ["docs", "untested"], 5),
        ("said to be fixes", ["feature"], 4),
        ("read whole, within size", ["large"], 3),
    ]
    assert ids(prospects) == [f"acme__calc-{past.commits['toss'][:12]}", "acme__calc-9", "acme__calc-7"]


def test_a_candidate_is_a_row_without_test_ids(past):
    sign = found(past.folder).candidates[-1]
    task = sign.task
    assert (task.repo, task.base_commit) == ("acme/calc", past.git("rev-parse", f"{past.commits['sign']}^"))
    assert (task.environment, task.test_run, task.fail_to_pass) == (Checkout(), None, ())
    assert sign.test_files == ("tests/test_calc.py",)
    assert "+    return a + b" in task.patch
    assert "test_calc" not in task.patch
    assert "+def test_sum():" in task.test_patch
    assert "b/calc.py" not in task.test_patch
    assert task.created_at == "2023-05-07T10:00:00Z"
    assert task.meta == {"commit": past.commits["sign"], "pull": 7, "authored_at": "2023-05-07T10:00:00Z"}


def test_limits_are_limits(past):
    assert "acme__calc-12" in ids(found(past.folder, max_files=8))
    assert len(ids(found(past.folder, max_lines=3))) == 3
    assert ids(found(past.folder, max_lines=2)) == [f"acme__calc-{past.commits['toss'][:12]}"]
    assert found(past.folder, since=date(2023, 5, 9)).commits == 3
    newest = found(past.folder, tries=1)
    assert (len(newest.candidates), newest.commits) == (1, 2)


def test_a_commit_without_its_content_is_passed_over(past, tmp_path):
    shutil.copytree(past.folder, tmp_path / "copy")
    blob = past.git("rev-parse", f"{past.commits['toss']}:toss.py")
    (tmp_path / "copy" / ".git" / "objects" / blob[:2] / blob[2:]).unlink()
    assert ids(found(tmp_path / "copy")) == ["acme__calc-9", "acme__calc-7"]


@pytest.mark.parametrize(
    ("message", "merged", "files", "is_fix"),
    [
        ("Fix the sum", (), {}, True),
        ("Prefixes are suffixes", (), {}, False),
        ("Closes #12", (), {}, True),
        ("Merge branch 'x'", ("Sums are wrong",), {}, True),
        ("Add sums", ("Fix typo in tests",), {}, False),
        ("Bump mypy from 1 to 2", ("Fix what it finds",), {}, False),
        ("Add sums", (), {"news/12.bugfix.rst": "A"}, True),
        ("Correct the sum", (), {}, True),
        ("Sums are now correct", (), {}, False),
    ],
)
def test_a_fix_says_that_it_is_one(message, merged, files, is_fix):
    commits = tuple(Commit("", (), 0, 0, text) for text in merged)
    assert says_fix(Change(Commit("", (), 0, 0, message), commits, files)) is is_fix
