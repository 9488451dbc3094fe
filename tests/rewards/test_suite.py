"""A repository's own suite, run by real pytest in a real sandbox."""

from dataclasses import replace

import pytest

from turnwise.rewards import FreshSuiteRunner, run_suite, with_suite
from turnwise.types import SuiteResult

CALC = """\
def add(a, b):
    return a - b


def boom(x):
    return inner(x)


def inner(x):
    raise ValueError(f"bad {x}")
"""
TESTS = """\
import sys
import unittest

import pytest
from pytest import mark

from calc import add, boom


def test_assert():
    x, y = 1, 2
    assert add(x, y) == 3


def test_exception():
    assert (
        boom(7) == 1
    )


def test_passes():
    assert sys.argv == ["pytest"]


@mark.xfail
def test_expected_failure():
    assert 0


@mark.skip
def test_skipped():
    pass


@pytest.mark.parametrize(("a", "b"), [(1, 2), (0, 0)])
def test_parameters(a, b):
    check(a, b)


def check(a, b):
    assert add(a, b) == a + b, "the sum"


def test_raises():
    with pytest.raises(KeyError):
        add(1, 2)


@pytest.fixture
def broken():
    raise RuntimeError("no fixture today")


def test_fixture(broken):
    pass


class Unreadable(Exception):
    def __str__(self):
        raise TypeError


def test_unreadable():
    raise Unreadable


class TestCase(unittest.TestCase):
    def test_equal(self):
        self.assertEqual(add(5, 3), 8)
"""


@pytest.fixture
def suite(small_world, backend, tmp_path):
    """Runs the given files as a repository's whole suite."""

    async def run(files: dict[str, str], test_files=None, timeout_s: float = 60) -> SuiteResult:
        for name, text in files.items():
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_text(text)
        return await FreshSuiteRunner(backend)(replace(small_world.spec, root=tmp_path), test_files, timeout_s)

    return run


async def test_outcomes_by_test(suite):
    result = await suite({"calc.py": CALC, "tests/test_calc.py": TESTS})

    assert {test_id.removeprefix("tests/test_calc.py::"): word for test_id, word in result.outcomes.items()} == {
        "test_assert": "failed",
        "test_exception": "failed",
        "test_passes": "passed",
        "test_expected_failure": "passed",
        "test_skipped": "skipped",
        "test_parameters[1-2]": "failed",
        "test_parameters[0-0]": "passed",
        "test_raises": "failed",
        "test_fixture": "error",
        "test_unreadable": "failed",
        "TestCase::test_equal": "failed",
    }
    assert (result.exit_code, result.timed_out) == (1, False)
    assert "6 failed, 2 passed, 1 skipped, 1 xfailed, 1 error" in result.log


async def test_why_a_test_failed(suite):
    failures = (await suite({"calc.py": CALC, "tests/test_calc.py": TESTS})).failures
    by_name = {test_id.removeprefix("tests/test_calc.py::"): failure for test_id, failure in failures.items()}

    failed = by_name["test_assert"]
    assert (failed.phase, failed.exception) == ("call", "AssertionError")
    assert failed.message == "assert -1 == 3\n +  where -1 = add(1, 2)"
    assert failed.statement == "assert add(x, y) == 3"
    assert failed.variables == {"x": "1", "y": "2"}

    raised = by_name["test_exception"]
    assert (raised.exception, raised.message) == ("ValueError", "bad 7")
    assert raised.statement == "assert (\n    boom(7) == 1\n)"
    assert [(frame.file, frame.function, frame.source) for frame in raised.frames[1:]] == [
        ("calc.py", "boom", "return inner(x)"),
        ("calc.py", "inner", 'raise ValueError(f"bad {x}")'),
    ]

    assert by_name["test_parameters[1-2]"].message.startswith("the sum\nassert -1 == (1 + 2)")
    assert by_name["test_raises"].statement == "with pytest.raises(KeyError):\n    add(1, 2)"
    assert by_name["test_raises"].exception == "Failed"
    assert (by_name["test_fixture"].phase, by_name["test_fixture"].message) == ("setup", "no fixture today")
    assert by_name["test_unreadable"].exception == "test_calc.Unreadable"
    assert [frame.function for frame in by_name["TestCase::test_equal"].frames] == ["test_equal"]
    assert "test_passes" not in by_name


async def test_a_file_that_cannot_be_collected_does_not_stop_the_others(suite):
    files = {"tests/test_bad.py": "import nowhere\n", "tests/test_good.py": "def test_good(): pass\n"}

    result = await suite(files)

    assert result.outcomes == {"tests/test_bad.py": "error", "tests/test_good.py::test_good": "passed"}
    assert result.failures["tests/test_bad.py"].phase == "collect"
    assert "nowhere" in result.failures["tests/test_bad.py"].message


async def test_only_the_files_asked_for_are_run_and_those_missing_are_left_out(suite):
    files = {"test_one.py": "def test_one(): pass\n", "test_two.py": "def test_two(): pass\n"}

    assert (await suite(files, ["test_two.py", "gone.py"])).outcomes == {"test_two.py::test_two": "passed"}
    assert (await suite(files, ["gone.py"])).outcomes == {}


async def test_a_suite_that_hangs_keeps_what_had_finished(suite):
    result = await suite({"test_it.py": "def test_a(): pass\ndef test_b():\n    while True: pass\n"}, timeout_s=2)

    assert result.timed_out
    assert result.outcomes == {"test_it.py::test_a": "passed"}


async def test_a_suite_that_kills_its_process_keeps_what_had_finished(suite):
    result = await suite({"test_it.py": "import os\ndef test_a(): pass\ndef test_b(): os._exit(0)\n"})

    assert result.outcomes == {"test_it.py::test_a": "passed"}


async def test_the_repositorys_own_pytest_configuration_is_not_read(suite):
    files = {"pytest.ini": "[pytest]\naddopts = --no-such-option\n", "test_it.py": "def test_it(): pass\n"}

    assert (await suite(files)).outcomes == {"test_it.py::test_it": "passed"}


async def test_nothing_is_written_into_the_repository(small_world, backend):
    async with backend.create(with_suite(small_world.spec)) as sandbox:
        await run_suite(sandbox, None, 60)
        status = await sandbox.exec("git status --porcelain --ignored", 10)

    assert status.output == ""


async def test_the_order_of_sets_is_the_same_in_every_run(suite):
    files = {"test_it.py": "def test_it():\n    raise ValueError(str(set('abcdefghij')))\n"}

    messages = {(await suite(files)).failures["test_it.py::test_it"].message for _ in range(3)}

    assert len(messages) == 1
