"""Tests that do what only tamperers do elsewhere: skip, expect failures, patch, wrap, run other tests."""

import pytest

from turnwise.rewards.suite import Supervised, recorded_command, suite_command, with_suite
from turnwise.types import TestRun

BY_PYTEST = """
import builtins, functools, unittest
import pytest

def decorated(function):
    @functools.wraps(function)
    def call(*args, **kwargs):
        return function(*args, **kwargs)
    return call

def impersonated(function):  # as Hypothesis does
    def call(): return function()
    call.__code__ = call.__code__.replace(co_name=function.__name__)
    return call

def documented():
    '''
    >>> 1 + 1  # doctest: +SKIP
    3
    '''

@decorated
def test_decorated(): assert True
@impersonated
def test_impersonated(): assert True
def test_patches(monkeypatch):
    shown = []
    monkeypatch.setattr(builtins, "print", shown.append)
    print(3)
    assert shown == [3]
async def test_asynchronous(): pass
def test_skips(): pytest.skip("a")
def test_skips_as_unittest_does(): raise unittest.SkipTest("a")
def test_lacks_a_module(): pytest.importorskip("nowhere_at_all")
@pytest.mark.skip
def test_marked(): pass
@pytest.mark.parametrize("a", [pytest.param(1, marks=pytest.mark.skip), 2])
def test_marked_parameter(a): assert a
@pytest.mark.xfail
def test_fails_as_expected(): assert False
@pytest.fixture
def marks(request): request.node.add_marker(pytest.mark.xfail)
def test_marked_by_its_fixture(marks): assert False
class TestUnit(unittest.TestCase):
    def test_skips_as_pytest_does(self): pytest.skip("a")
    @pytest.mark.skip
    def test_marked(self): pass
"""
EXPECTED = {
    "test_decorated": "passed",
    "test_patches": "passed",
    "test_skips": "skipped",
    "test_lacks_a_module": "skipped",
    "test_marked_parameter[2]": "passed",
    "test_fails_as_expected": "xfailed",
    "test_marked_by_its_fixture": "xfailed",
    "test_of_class": "skipped",
}
BY_UNITTEST = """
import unittest

class CalcTest(unittest.TestCase):
    def test_right(self): self.assertEqual(1, 1)
    def test_skips(self): self.skipTest("a")
    @unittest.skip("a")
    def test_skipped(self): pass
    @unittest.expectedFailure
    def test_fails_in_a_class(self): self.fail()
    def test_asserts(self):
        with self.subTest(a=1):
            with self.assertRaises(ValueError):
                raise ValueError
        with self.assertRaisesRegex(ValueError, "a"):
            raise ValueError("a")
        self.assertCountEqual([1, 2], [2, 1])
    def test_runs_another(self):
        class Inner(unittest.TestCase):
            def test_inner(self): self.fail()
        result = unittest.TestResult()
        Inner("test_inner").run(result)
        self.assertEqual(len(result.failures), 1)

@unittest.skip("a")
class SkippedTest(unittest.TestCase):
    def test_in_skipped(self): pass

class SetUpTest(unittest.TestCase):
    def setUp(self): self.skipTest("a")
    def test_set_up(self): pass

class ClassTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls): raise unittest.SkipTest("a")
    def test_of_class(self): pass
"""


@pytest.mark.parametrize("way", ["ours", "pytest"])
async def test_honest_tests_end_as_pytest_says(way, small_world, backend):
    files = ["tests/test_honest.py", "tests/test_unit.py"]
    run = TestRun(f"pytest -rA --doctest-modules {' '.join(files)}", "parse_log_pytest")
    command = suite_command(files) if way == "ours" else recorded_command(run)
    async with backend.create(with_suite(small_world.spec)) as sandbox:
        await sandbox.write("/testbed/tests/test_honest.py", BY_PYTEST.encode())
        await sandbox.write("/testbed/tests/test_unit.py", BY_UNITTEST.encode())
        await sandbox.write("/tmp/secret", b"secret")
        _, record = await Supervised(command, 60, b"secret", "/tmp/secret").run(sandbox)

    assert record.sealed, record.log
    assert record.finished
    words = {name.rpartition("::")[2]: outcome for name, outcome in record.outcomes.items()}
    assert {name: words[name] for name in EXPECTED} == EXPECTED, record.log
    failed = {name for name, outcome in record.outcomes.items() if outcome in ("failed", "error")}
    assert all("inner" in name or "asynchronous" in name for name in failed), failed
