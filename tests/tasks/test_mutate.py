"""Every operator on small literal sources: what it makes of them, to the character."""

import inspect
import textwrap

import pytest

from turnwise.tasks.mutate import KINDS, enumerate_mutants, outermost_function

LOOP = "def f(a, b):\n    for x in a:\n        if x:\n            {}\n        b.use(x)\n    return b\n"
CASES = [
    ("comparison", "if a < b:  # why\n        a = b", ["if a > b:  # why", "if a >= b:  # why"]),
    ("comparison", "return a  not  in b", ["return a  in b"]),
    ("comparison", "return (a) is not (b)", ["return (a) is (b)"]),
    ("boundary", "return a <= b < 3", ["return a < b < 3", "return a <= b <= 3"]),
    ("arithmetic", "return a  *  (b)", ["return a  +  (b)", "return a  //  (b)"]),
    ("arithmetic", "a += b", ["a -= b", "a = b"]),
    ("arithmetic", "return -a", ["return a"]),
    ("boolean", "return a and b", ["return a", "return a or b", "return b"]),
    ("boolean", "return not (a  + b)", ["return (a  + b)"]),
    ("boolean", "while a.b:\n        a.pop()", ["while not a.b:"]),
    ("constant", "a = 3", ["a = 2", "a = 4"]),
    ("constant", "a = True", ["a = False"]),
    ("constant", "a = b.join(',')", ["a = b.join(';')"]),
    ("off_by_one", "return a[1:b]", ["return a[0:b]", "return a[1:b + 1]", "return a[1:b - 1]", "return a[2:b]"]),
    ("off_by_one", "return a[-1]", ["return a[-2]", "return a[0]"]),
    ("off_by_one", "return range(b + 1)", ["return range(1, b + 1)", "return range(b)"]),
    ("off_by_one", "return enumerate(a)", ["return enumerate(a, 1)"]),
    ("swapped_arguments", "return a(b,  1)", ["return a(1,  b)"]),
    ("dropped_argument", "return a(b, 1, k=2)", ["return a(b, 1)", "return a(b, k=2)"]),
    ("wrong_variable", "return a.x", ["return b.x"]),
    ("wrong_call", "return min(a)", ["return max(a)"]),
    ("wrong_call", "return a.b.lstrip()", ["return a.b.rstrip()"]),
    ("removed_guard", "if not a:\n        raise KeyError(a)\n    return b", [""]),
    ("removed_branch", "if a:\n        b = 1\n    else:\n        b = 2\n    return b", [""]),
    ("removed_branch", "return a if b else 0", ["return 0", "return a"]),
    ("removed_statement", "a.append(b)\n    return a", [""]),
    ("removed_statement", "a = b\n    return a", [""]),
    ("wrong_return", "return a, b", ["return None", "return b, a"]),
    ("wrong_return", "return list(a)", ["return None", "return a"]),
    ("wrong_return", "return True", ["return False"]),
    ("exception", "raise ValueError('no')", ["raise TypeError('no')"]),
]


def _mutated(source, kind):
    return [m.mutated.strip() for m in enumerate_mutants(source, [kind])]


@pytest.mark.parametrize(("kind", "body", "expected"), CASES)
def test_what_an_operator_makes(kind, body, expected):
    assert sorted(_mutated(f"def f(a, b):\n    {body}\n", kind)) == expected


def test_loop_control():
    assert _mutated(LOOP.format("break"), "loop_control") == ["continue", "pass"]
    assert _mutated(LOOP.format("continue"), "loop_control") == ["break", "pass"]


def test_exception_handlers():
    source = "def f(a):\n    try:\n        return a()\n    except (KeyError, OSError):\n        return 1\n"
    assert _mutated(source, "exception") == [
        "except (IndexError, OSError):",
        "except (KeyError):",
        "raise",
    ]


def test_every_kind_is_tried_here():
    assert {kind for kind, _, _ in CASES} | {"loop_control"} == set(KINDS)
    assert len(KINDS) >= 10


def test_only_the_lines_of_the_bug_change():
    source = 'def f(é, b):\n    """Doc: 1 < 2."""\n    x = "é" ; y = é  <  b   # keep\n    return (x,\n            y)\n'
    (bug,) = enumerate_mutants(source, ["boundary"])
    assert bug.apply(source) == source.replace("é  <  b", "é  <=  b")
    assert (bug.lineno, bug.end_lineno, bug.function, bug.function_lines) == (3, 3, "f", 5)


def test_removed_lines_leave_the_rest_as_it_was():
    source = "def f(a):\n    # guard\n    if a:\n        return 1\n\n    return 2\n"
    (bug,) = enumerate_mutants(source, ["removed_guard"])
    assert bug.apply(source) == "def f(a):\n    # guard\n\n    return 2\n"


def test_places_no_bug_goes_to():
    source = (
        "import os\nLIMIT = 1\n\n@decorated(1)\ndef f(a: 'x[1]' = None) -> 'y[0]':\n"
        '    """Docs, 1."""\n    return f"{a[0]}"\n'
    )
    assert _mutated(source, "off_by_one") == []
    assert _mutated(source, "constant") == []


def test_a_variable_is_taken_only_where_it_is_bound():
    source = "def f(a):\n    x = [c for c in a]\n    later = x\n    return a, later\n"
    assert _mutated(source, "wrong_variable") == [
        "later = a",
        "return a, a",
        "return a, x",
        "return later, later",
        "return x, later",
    ]


def test_methods_and_nested_functions_have_qualified_names():
    source = (
        "class A:\n    def m(self, a):\n        n = 0\n        def inner(b):\n            nonlocal n\n"
        "            n += b\n            return n\n        return inner(a)\n"
    )
    assert {m.function for m in enumerate_mutants(source)} == {"A.m", "A.m.inner"}


def test_every_mutant_of_a_real_file_compiles_and_differs():
    source = inspect.getsource(textwrap)
    mutants = enumerate_mutants(source, ["comparison", "boolean", "removed_branch", "loop_control", "off_by_one"])
    assert len(mutants) > 50
    for mutant in mutants:
        changed = mutant.apply(source)
        compile(changed, "textwrap.py", "exec")
        assert changed != source
        assert "".join(source.splitlines(keepends=True)[mutant.lineno - 1 : mutant.end_lineno]) == mutant.original


NESTED = """\
def f(a=1):
    class C:
        def g(self):
            return a
class D:
    x = 1
    class E:
        async def h(self):
            def k():
                return 1
"""


def test_the_outermost_function_is_a_method_or_what_holds_all_else():
    names = [outermost_function(NESTED, lineno) for lineno in range(1, 11)]
    assert names == ["f"] * 4 + [""] * 3 + ["D.E.h"] * 3
