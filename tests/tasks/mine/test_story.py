"""The problem as it is told: enough to work on, no noise, and never a line of the fix."""

import pytest

from turnwise.tasks.mine import find_candidates, open_history, told_problem, told_symptom
from turnwise.tasks.mine.candidates import Rules
from turnwise.tasks.mine.commits import Change, Commit
from turnwise.tasks.mine.story import Links, is_thin_alone
from turnwise.types import Frame, TestFailure

PATCH = (
    "diff --git a/calc.py b/calc.py\n--- a/calc.py\n+++ b/calc.py\n@@ -1 +1,2 @@ def add(a, b):\n-    return a - b\n"
    "+    if a:\n+    return a + b\ndiff --git a/NEWS.md b/NEWS.md\n--- a/NEWS.md\n+++ b/NEWS.md\n@@ -1 +1,2 @@\n x\n"
    "+add gives the sum\n"
)


def change(message, *merged, name="f" * 40, second=100):
    commits = tuple(Commit(str(n), (), 0, 0, text) for n, text in enumerate(merged))
    return Change(Commit(name, (), second, second, message), commits, {})


def told(message, *merged, linked=(), symptom=""):
    return told_problem(change(message, *merged), linked, PATCH, symptom)


def test_a_pull_request_is_told_without_its_frame(past):
    history, tip = open_history(past.folder, "HEAD")
    sign, half = [one for one in find_candidates(history, tip, "a/b", Rules()).candidates if "pull" in one.task.meta][
        ::-1
    ]
    assert sign.task.problem_statement.startswith("add gives a wrong sum\n\nadd(2, 3) gives -1, and add(2, -3)")
    assert sign.task.problem_statement.endswith("It should give the sum of both.\n")
    assert half.task.problem_statement == "Fix halves of odd numbers\n\n* halve(3) was cut to 1\n"


@pytest.mark.parametrize("line", ["return a + b", "    return a + b", "Use `return a + b` there.", "if a:"])
def test_a_paragraph_that_shows_the_fix_goes(line):
    assert told(f"Sums are wrong\n\nFirst.\n{line}\nMore of it.\n\nLast.") == "Sums are wrong\n\nLast.\n"


def test_what_only_resembles_the_fix_stays():
    assert told("add gives the sum\n\nSee if a: is not it.") == "add gives the sum\n\nSee if a: is not it.\n"


def test_trailers_links_and_merge_lines_go():
    message = (
        "Merge branch 'x' into 'main'\n\nSums are wrong (#3) (#4)\n\nBoth of them.\n\nFixes #3, closes #5\n"
        "Reviewed-by: x\nChange-Id: I1\n(cherry picked from commit abcdef0)\n\nSee merge request a/b!12"
    )
    assert told(message) == "Sums are wrong\n\nBoth of them.\n"


def test_a_thin_text_is_told_further_until_it_is_not():
    long = "A sum is not a difference. " * 8
    merged = ("Add tests", "Sums are wrong", "Mind negative numbers\n\nThey have a sign.")
    assert told("Sums are wrong", *merged, linked=["Sums, again (#3)"]) == (
        "Sums are wrong\n\nMind negative numbers\n\nThey have a sign.\n\nSums, again\n"
    )
    assert told("Sums are wrong\n\n* Turn it", *merged, long, linked=["Again"], symptom="add(2, 3) gives -1") == (
        f"Sums are wrong\n\nadd(2, 3) gives -1\n\n{long.strip()}\n"
    )
    assert told(f"Sums\n\n{long}", *merged, linked=["Earlier"], symptom="shown") == f"Sums\n\n{long.strip()}\n"
    assert not is_thin_alone(change(f"Sums\n\n{long}"), PATCH)
    assert is_thin_alone(change("Sums", long), PATCH)


def test_of_a_list_only_the_entry_that_shows_the_fix_goes():
    assert told("Sums\n\n- are wrong\n- return a + b\n  it is\n- always") == "Sums\n\n- are wrong\n- always\n"


def test_entries_that_tell_of_the_work_go_with_all_their_lines():
    message = "Sums\n\n- they are wrong,\n  by twice b\n- fix typos in\n  the tests\n- wip\n"
    assert told(message) == "Sums\n\n- they are wrong,\n  by twice b\n"


def test_a_text_of_nothing_but_the_fix_is_empty():
    assert told("return a + b") == ""


def test_earlier_commits_on_the_same_issue_are_linked():
    later, other = Commit("l", (), 200, 0, "See #3"), Commit("o", (), 50, 0, "See #4")
    earlier = [Commit(str(second), (), second, 0, f"About #3, at {second}") for second in (40, 30, 20)]
    release = Commit("r", (), 60, 0, "Release: #1 #2 #3 #4")
    links = Links([later, other, release, *earlier])
    assert links.of(change("Sums\n\nFixes #3")) == ["About #3, at 30", "About #3, at 40"]
    assert links.of(change("About #3", name="40")) == ["About #3, at 20", "About #3, at 30"]
    assert links.of(change("Sums")) == []


def test_the_symptom_names_no_hidden_test():
    test = "tests/test_calc.py::test_sum"
    frames = (Frame("tests/test_calc.py", 3, "test_sum", ""), Frame("calc.py", 2, "add", "return a - b"))
    failure = TestFailure("call", "TypeError", "no sum", "assert calc.add(2, 3) == 5", {}, frames)
    text = told_symptom({test: failure, "tests/test_b.py::test_x": failure}, PATCH, ["tests/test_calc.py"], [test])
    assert "calc.add(2, 3)" in text
    assert "in add (calc.py)" in text
    assert "test_" not in text
    assert told_symptom({}, PATCH, ["tests/test_calc.py"], [test]) == ""


def test_a_file_that_cannot_be_collected_tells_why_without_its_name():
    message = "cannot import name 'total' from 'calc' (/testbed/calc.py)"
    failure = TestFailure("collect", "ImportError", message, "from calc import total")
    text = told_symptom({"tests/test_calc.py": failure}, PATCH, ["tests/test_calc.py"], ["tests/test_calc.py::test_x"])
    assert "from calc import total" in text
    assert "ImportError: cannot import name 'total'" in text
