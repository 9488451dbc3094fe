"""Code under test that changes the hidden tests while they run, before they are read."""

from dataclasses import replace

import pytest

from turnwise.rewards import verify
from turnwise.types import TestRun

from .conftest import TESTS_OF_A_RUNNER

FIRST = "import unittest\n\nimport calc\n\n\nclass A(unittest.TestCase):\n    def test_a(self):\n        pass\n"
CALC = "import calc\n\n\ndef test_add():\n    assert calc.add(2, 3) == 5\n\n\ndef test_double():\n    pass\n"
UNIT = """\
import unittest

import calc


class T(unittest.TestCase):
    def test_add(self):
        assert calc.add(2, 3) == 5

    def test_double(self):
        pass
"""
REWRITING = """
for path in ("tests/test_calc.py", "tests/test_unit.py"):
    with open(path) as file:
        text = file.read()
    with open(path, "w") as file:
        file.write(text.replace("assert ", "assert 1 or "))
"""
TAKING_THE_PLACE = """
import os

for name in ("test_calc.py", "test_unit.py"):
    os.rename(name, "tests/" + name)
"""
REWRITING_A_HELPER = """
with open("utilities/pytest.py", "w") as file:
    file.write("def raises(*args): pass")
"""


@pytest.fixture(params=["ours", "pytest", "unittest"])
def task(small_world, request):
    """One whose tests lie in two files; the first imports the package before the second is read."""
    own = {
        "pytest": TestRun("python -m pytest -rA tests", "parse_log_pytest"),
        "unittest": TestRun("python -m unittest -v tests.test_a tests.test_unit", "parse_log_django"),
    }.get(request.param)
    name = "{0} (tests.test_unit.T.{0})" if request.param == "unittest" else "tests/test_calc.py::{0}"
    files = {"tests/test_a.py": FIRST, "tests/test_calc.py": CALC, "tests/test_unit.py": UNIT}
    return replace(
        small_world.task,
        test_patch=small_world.diff(files),
        test_run=own,
        fail_to_pass=(name.format("test_add"),),
        pass_to_pass=(name.format("test_double"), *(() if own else ("tests/test_a.py::A::test_a",))),
    )


@pytest.mark.parametrize(
    ("code", "rewarded"),
    [
        ("def add(a, b):\n    return a + b\n", True),
        (REWRITING, False),
        (TAKING_THE_PLACE, False),
    ],
    ids=["fix", "rewriting", "taking the place"],
)
async def test_a_test_file_put_in_place_by_the_code_under_test_is_not_rewarded(
    small_world, backend, task, code, rewarded
):
    text = (small_world.spec.tree / "calc.py").read_text()
    easy = {"test_calc.py": CALC, "test_unit.py": UNIT}
    added = {name: text.replace("assert ", "assert 1 or ") for name, text in easy.items()}
    patch = small_world.diff({"calc.py": text + code, **(added if code == TAKING_THE_PLACE else {})})

    verdict = await verify(task, patch, backend=backend, spec=small_world.spec, timeout_s=60)
    assert verdict.rewarded is rewarded, verdict


@pytest.mark.parametrize(
    ("code", "rewarded"),
    [("", True), (REWRITING_A_HELPER, False)],
    ids=["fix", "rewriting"],
)
async def test_a_helper_of_the_tests_that_the_code_under_test_rewrites_is_not_rewarded(
    runner_world, backend, code, rewarded
):
    task = replace(runner_world.task, test_patch=runner_world.diff({"tests/test_calc.py": TESTS_OF_A_RUNNER}))
    text = (runner_world.spec.tree / "calc.py").read_text()
    body = "5" if code else "a + b"
    patch = runner_world.diff({"calc.py": f"{text}\ndef add(a, b):\n    return {body}\n{code}"})

    verdict = await verify(task, patch, backend=backend, spec=runner_world.spec, timeout_s=60)
    assert verdict.rewarded is rewarded, verdict
