"""Hiding tests: what is left of a test file, to the character."""

import pytest

from turnwise.errors import TaskError
from turnwise.tasks.hidden import without_tests

FILE = '''\
import pytest


@pytest.mark.parametrize(
    "x", [1, 2]
)
def test_a(x):
    assert x  # kept together


# about b
def test_b():
    pass


class Base:
    """Shared."""

    def test_shared(self):
        pass


class TestC(Base):
    def test_c(self):
        pass

    async def test_d(self):
        pass


class TestE:
    def test_e(self): pass


if True:
    def test_f():
        pass
'''


def _cut(old, new=""):
    assert old in FILE
    return FILE.replace(old, new)


@pytest.mark.parametrize(
    ("test_ids", "expected"),
    [
        (
            ["t.py::test_a[1]", "t.py::test_a[x::y]"],
            _cut('@pytest.mark.parametrize(\n    "x", [1, 2]\n)\ndef test_a(x):\n    assert x  # kept together\n\n\n'),
        ),
        (["t.py::test_b"], _cut("def test_b():\n    pass\n\n\n")),
        (["t.py::TestC::test_c"], _cut("    def test_c(self):\n        pass\n\n")),
        (
            ["t.py::TestC::test_c", "t.py::TestC::test_d"],
            _cut("    def test_c(self):\n        pass\n\n    async def test_d(self):\n        pass\n", "    pass\n"),
        ),
        (["t.py::TestC::test_d"], _cut("\n    async def test_d(self):\n        pass\n")),
        (["t.py::TestC::test_shared"], _cut("\n    def test_shared(self):\n        pass\n")),
        (["t.py::TestE::test_e"], _cut("    def test_e(self): pass\n", "    pass\n")),
        (["t.py::test_f"], _cut("    def test_f():\n        pass\n", "    pass\n")),
    ],
)
def test_what_is_left(test_ids, expected):
    left = without_tests(FILE, test_ids)
    assert left == expected
    compile(left, "t.py", "exec")


def test_a_file_may_be_left_empty():
    assert without_tests("def test_a():\n    pass\n", ["t.py::test_a"]) == ""


@pytest.mark.parametrize("test_id", ["t.py::test_made_at_run_time", "t.py::TestC::test_e", "t.py::Nowhere::test_a"])
def test_what_is_not_defined_here_is_refused(test_id):
    with pytest.raises(TaskError, match="cannot be hidden"):
        without_tests(FILE, [test_id])


def test_carriage_returns_stay():
    source = "def test_a():\r\n    pass\r\n\r\n\r\ndef test_b():\r\n    pass\r\n"
    assert without_tests(source, ["t.py::test_a"]) == "def test_b():\r\n    pass\r\n"
