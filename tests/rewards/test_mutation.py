"""Tests that come to ask for something else."""

import random

import pytest

from turnwise.rewards.mutation import mutate_cases, mutate_tests


def mutants(source: str, others: tuple[str, ...] = ()) -> set[str]:
    """What becomes of the source over many draws."""
    return {mutate_tests(source, {"test_a"}, set(others), random.Random(seed)) for seed in range(60)}


@pytest.mark.parametrize(
    ("statement", "wrong"),
    [
        ("assert f(1) == 5, 'w'", ["assert f(1) == 6, 'w'", "assert f(1) == 4, 'w'"]),
        ("assert f() == {'a': [1, 'x']}", ["assert f() == {'a': [2, 'x']}", "assert f() == {'aa': [1, 'x']}"]),
        ("assert f() is None", ["assert not (f() is None)"]),
        ("assert f()", ["assert not (f())"]),
        ("assert not f()", ["assert f()"]),
        ("assert 'x' not in f()", ["assert not ('x' not in f())"]),
        ("assert f() is True", ["assert f() is False"]),
        ("assert 3 == f('4')", ["assert 2 == f('4')"]),
        ("assert f(1) == Number(5)", ["assert f(1) == Number(6)"]),
        ("assert a == 5 and f(1) == 2", ["assert a == 6 and f(1) == 2", "assert a == 5 and f(1) == 3"]),
        ("assert same(f(1), 5)", ["assert same(f(1), 6)"]),
        ("assert f(1).equals(Number(5))", ["assert f(1).equals(Number(6))"]),
        ("assert abs(f(0.1, 0.2) - 0.3) < 1e-6", ["assert abs(f(0.1, 0.2) - 1.3) < 1e-6"]),
        ("self.assertGreater(f(), g())", ["self.assertLessEqual(f(), g())"]),
        ("self.assertEqual(f(), 3, 'm')", ["self.assertEqual(f(), 4, 'm')"]),
        ("self.assertTrue(f(1) == 3)", ["self.assertTrue(f(1) == 4)"]),
        ("np.testing.assert_allclose(f(), 1.5)", ["np.testing.assert_allclose(f(), 2.5)"]),
        ("run_case(2, 5)", ["run_case(2, 6)"]),
        ("with raises(Bad, match='x'):\n        f()", ["with raises(Bad, match='xx'):\n        f()"]),
        ("with raises(Bad):\n        f()", ["with raises(EOFError):\n        f()"]),
        ("wanted = [1, 2]\n    assert f() == wanted", ["wanted = [1, 3]\n    assert f() == wanted"]),
    ],
)  # fmt: skip
def test_an_assertion_asks_for_something_else(statement, wrong):
    source = "def run_case(a, b):\n    check(f(a), b)\n\n\ndef test_a():\n    z = 7\n    {}\n"

    assert mutants(source.format(statement)) >= {source.format(text) for text in wrong}


@pytest.mark.parametrize(
    ("statement", "negated"),
    [
        ("assert f(1) == 5", "assert not"),
        ("self.assertEqual(f(), 3)", "NotEqual"),
        ("self.assertTrue(f(1) == 3)", "assertFalse"),
    ],
)
def test_what_is_equal_to_everything_gets_no_negation_to_fail(statement, negated):
    assert not any(negated in mutant for mutant in mutants(f"def test_a():\n    {statement}\n"))


@pytest.mark.parametrize("statement", ["assert f(1).accepts('x')", "assert accepts(f(1), 'x')", "f(1)"])
def test_what_is_asked_of_the_tested_code_stays(statement):
    source = f"def test_a():\n    {statement}\n"
    negated = source.replace("assert ", "assert not (").rstrip("\n") + ")\n"

    assert mutants(source) <= {source, negated.replace('"', "'")}


def test_a_parameter_keeps_its_type():
    rows = "@pytest.mark.parametrize(('a', 'wanted'), [(1, 'x'), (2, 'y')])\n"
    source = f"{rows}def test_a(a, wanted):\n    assert f(a) == wanted\n"

    assert source.replace("'x'", "'xx'").replace("'y'", "'yy'") in mutants(source)


def test_half_of_the_other_tests_take_a_mutation_too():
    source = "\n\n".join(f"def {name}():\n    assert f() == 1\n" for name in ("test_a", "test_b", "test_c"))

    for text in mutants(source, ("test_b", "test_c")):
        _, a, b, c = text.split("def ")
        assert "assert f() == 1" not in a
        assert ("assert f() == 1\n" in b) != ("assert f() == 1\n" in c)


def test_a_test_is_found_by_the_first_line_of_its_docstring():
    source = 'def test_x(self):\n    """\n    It adds.\n    """\n    self.assertIs(f(), True)\n'

    assert mutate_tests(source, {"It adds."}, (), random.Random(0)) != source


def test_places_are_those_of_the_text():
    source = "x = 'é'\r\n\x0c\r\ndef test_a():\r\n    assert 'éé' + f('é') == 'ü'  # ö\r\n"

    assert source.replace("'ü'", "'üü'") in mutants(source)


def test_what_is_no_python_is_refused():
    with pytest.raises(SyntaxError):
        mutate_tests("print 'x'\n", {"test_a"}, (), random.Random(0))


def test_a_case_of_mypys_comes_to_expect_a_note_that_is_not_there():
    cases = "[case testA]\n# flags: --strict\nx = 1\n[out]\n\n[case testB-skip]\ny = 1\n[case testAB]\nz = 1\n"
    wrong = 'reveal_type(1)  # N: Revealed type is "builtins.bytes"\n'

    made = mutate_cases(cases, {"testA", "testB", "testC"})

    assert made == cases.replace("testA]\n", f"testA]\n{wrong}").replace("testB-skip]\n", f"testB-skip]\n{wrong}")
