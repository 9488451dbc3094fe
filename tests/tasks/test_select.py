"""Which tasks are meant: a named selection is whole or refused, a pattern finds its place in an id."""

import re

import pytest

from turnwise.errors import InputError, TaskError
from turnwise.tasks import select
from turnwise.tasks.select import selections
from turnwise.types import Checkout, Task


def _tasks(*ids):
    return [Task(name, "a/b", "c" * 40, "p", "t", "s", ("x",), (), Checkout()) for name in ids]


def _chosen(tasks, wanted):
    return [task.instance_id for task in select(tasks, wanted)]


def test_verified_50_is_the_papers_list():
    ids = selections()["verified-50"]
    assert len(ids) == 50
    assert all(re.fullmatch(r"[\w-]+__[\w-]+-\d+", name) for name in ids)
    assert {"sympy__sympy-22080", "psf__requests-2317", "pytest-dev__pytest-5809", "pylint-dev__pylint-4661"} <= ids
    assert sum(name.startswith("django__django-") for name in ids) == 24


def test_a_named_selection_is_taken_whole_in_the_tasks_order():
    ids = sorted(selections()["verified-50"], reverse=True)
    assert _chosen(_tasks("other__other-1", *ids), "Verified-50") == ids


def test_a_selection_that_is_not_whole_is_refused():
    ids = sorted(selections()["verified-50"])
    with pytest.raises(TaskError, match=r"1 of the 50 tasks of verified-50 are not here: django__django-10880$"):
        select(_tasks(*ids[1:]), "verified-50")
    with pytest.raises(TaskError, match=r"50 of the 50 tasks of verified-50 are not here: (\S+, ){3}…$"):
        select(_tasks("a"), "verified-50")


def test_a_pattern_is_searched_for_in_the_ids():
    tasks = _tasks("django__django-1", "django__django-12", "psf__requests-1")
    assert _chosen(tasks, "-1$") == ["django__django-1", "psf__requests-1"]
    assert _chosen(tasks, "^django") == ["django__django-1", "django__django-12"]


def test_a_pattern_that_nothing_matches_or_that_is_none_is_refused():
    with pytest.raises(TaskError, match="no instance id matches 'flask'"):
        select(_tasks("a"), "flask")
    with pytest.raises(InputError, match=r"'\(' is neither a selection \(verified-50\) nor a pattern"):
        select(_tasks("a"), "(")
