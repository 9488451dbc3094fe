"""Fresh bugs for the stand-in: each can be repaired, none is one that a task ships."""

import random
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "scripts" / "standin"))

from corpus import Function, Reports, SourceFile
from corruptions import corrupt, shows_code
from demonstrations import drill, one_liners, repair

CLEAN = '''import os


def clamp(value, low, high):
    """Keep a value between two others."""
    if value < low:
        return low
    return min(value, high)

'''
LINES = CLEAN.split("\n")
SHIPPED = {(6, "    if value <= low:\n"), (8, "")}


def function(lines: list[str] = LINES, last: int = 8) -> Function:
    source = SourceFile("clamp.py", tuple(lines))
    return Function(source, "clamp", 4, last, 24, (), frozenset(SHIPPED), ("`clamp` fails in clamp.py",), ())


def bugs(count: int) -> list:
    rng = random.Random(0)
    return [bug for bug in (corrupt(function(), rng) for _ in range(count)) if bug is not None]


def test_a_corruption_changes_one_line_of_code_that_is_shown():
    found = bugs(500)
    assert {bug.lineno for bug in found} == {6, 7, 8}
    for bug in found:
        changed = bug.apply(CLEAN).split("\n")
        assert changed != LINES
        start, stop, text = repair(function(), bug)
        changed[start - 1 : stop] = text
        assert changed == LINES


def test_what_a_task_ships_is_never_drawn():
    assert not {(bug.lineno, bug.mutated) for bug in bugs(3000)} & SHIPPED


def test_a_function_of_which_only_the_docstring_is_shown_teaches_nothing():
    assert shows_code(function())
    assert not shows_code(function(last=5))


@pytest.mark.parametrize("seed", range(5))
def test_a_drill_mends_the_whole_view(seed):
    found = one_liners(function(), random.Random(seed), 3)
    shown, *mended = drill(function(), found, 24).exchanges
    for bug in found:
        assert f"{bug.lineno}:{bug.mutated}" in shown.observation
        assert any(bug.original in each.response for each in mended)
        assert f"{bug.lineno}:{bug.original}" in mended[-1].observation


@pytest.mark.parametrize("seed", range(20))
def test_a_report_names_the_function(seed):
    reports = Reports.of([function()])
    assert "clamp" in reports.draw(function(), random.Random(seed))
