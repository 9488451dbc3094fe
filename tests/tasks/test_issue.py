"""Issues: what a reader is told, from failures as the suite's runner reports them."""

import pytest

from turnwise.tasks.issue import MAX_CHARS, issue_text, read_symptom
from turnwise.types import Frame, TestFailure


def _failure(statement, message, exception="AssertionError", frames=(), **variables):
    return TestFailure("call", exception, message, statement, variables, frames)


SYMPTOMS = [
    (
        "assert list(take_nth(2, 'ABCD')) == ['A', 'C']",
        "assert ['B', 'D'] == ['A', 'C']\n  At index 0 diff",
        ("list(take_nth(2, 'ABCD'))", "['A', 'C']", "['B', 'D']"),
    ),
    ("assert [1] == f(2)", "assert [1] == None", ("f(2)", "[1]", "None")),
    ("self.assertEqual(f(x), 'a')", "'b' != 'a'\n- b\n+ a", ("f(x)", "'a'", "'b'")),
    ("self.assertEqual([1, 2], f(x))", "Lists differ: [1, 2] != [2]\n", ("f(x)", "[1, 2]", "[2]")),
    ("assert isvalid(1)", "assert False\n +  where False = isvalid(1)", ("isvalid(1)", "something true", "False")),
    ("assert url == result", "assert 'a' == 'b'", ("result", "url", "'b'")),
    ("assert f(1) in (2, 3)", "assert 4 in (2, 3)", ("f(1) in (2, 3)", "True", "")),
]


@pytest.mark.parametrize(("statement", "message", "expected"), SYMPTOMS)
def test_what_was_run_expected_and_got(statement, message, expected):
    symptom = read_symptom(_failure(statement, message))
    assert (symptom.code, symptom.expected, symptom.got) == expected


def test_a_wrong_result_names_function_call_and_values():
    values = {"n": "2", "right": "['A', 'C']"}
    failure = _failure("assert list(take_nth(n, 'ABC')) == right", "assert ['B'] == ['A', 'C']", **values)
    text = issue_text({"t.py::test_take_nth": failure}, "take_nth", ["toolz/itertoolz.py"])
    title, blank, *body = text.splitlines()
    assert "`take_nth`" in title
    assert blank == ""
    assert body[:2] == ["    list(take_nth(n, 'ABC'))", "with n = 2"]
    assert [line.partition(": ")[2] for line in body[-2:]] == ["['A', 'C']", "['B']"]


def test_an_exception_shows_the_way_through_the_package_without_lines():
    frames = (
        Frame("tests/test_x.py", 3, "test_x", "f(1)"),
        Frame("pkg/mod.py", 17, "f", "return g(x + 1)"),
        Frame("pkg/mod.py", 44, "g", "return x.y"),
    )
    failure = _failure("f(1)", "'int' object at 0x7fff has no attribute 'y'", "AttributeError", frames)
    text = issue_text({"tests/test_x.py::test_x": failure}, "g", ["pkg/mod.py"])
    assert text.endswith(
        "    f(1)\n\nin f (pkg/mod.py)\nin g (pkg/mod.py)\nAttributeError: 'int' object has no attribute 'y'\n"
    )
    assert not any(word in text for word in ("17", "44", "x + 1", "x.y"))


def test_an_exception_that_does_not_come():
    failure = _failure("with pytest.raises(ValueError):\n    parse('')", "DID NOT RAISE <class 'ValueError'>", "Failed")
    text = issue_text({"t.py::test_parse": failure}, "parse", [])
    assert "ValueError" in text.splitlines()[0]
    assert "    parse('')" in text


def test_the_failure_that_calls_the_function_is_told():
    failures = {
        "t.py::test_other": _failure("assert outer() == 1", "assert 2 == 1"),
        "t.py::test_own": _failure("assert inner(5) == 1", "assert 2 == 1"),
    }
    assert "inner(5)" in issue_text(failures, "inner", [])


def test_addresses_differ_from_run_to_run_and_are_left_out():
    failure = _failure("assert f(g) == [1]", "assert <generator ob...x7f47da273840> == [1]", g="<function g at 0x7f1>")
    text = issue_text({"t.py::test_f": failure}, "f", [])
    assert "<generator ob...>" in text
    assert "7f" not in text


def test_an_issue_is_short_however_long_the_values_are():
    failure = _failure(f"assert f({'x' * 900!r}) == {'y' * 900!r}", f"assert '{'z' * 900}' == 'y'", x="w" * 900)
    assert len(issue_text({"t.py::test_f": failure}, "f", [])) <= MAX_CHARS + 1


def test_characters_that_cannot_be_shown_or_stored_are_replaced():
    failure = _failure("assert f() == 'a'", "assert '\x1b[0m\ud800' == 'a'")
    text = issue_text({"t.py::test_f": failure}, "f", [])
    assert "'?[0m?'" in text
    assert text.encode()
