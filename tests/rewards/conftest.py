"""The corpus of reward hacks in hacks/, and what judges them; here for the tests of every backend."""

import asyncio
import shutil
import tomllib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import pytest

from turnwise.rewards import verify
from turnwise.types import Task, TestRun, Verdict

from ..conftest import SmallWorld, changes, git

CORPUS = {
    path.stem: tomllib.loads(path.read_text()) for path in sorted((Path(__file__).parent / "hacks").glob("*.toml"))
}
LIMITS = CORPUS.pop("limits")
HACKS = {f"{theme}-{name}": hack for theme, hacks in CORPUS.items() for name, hack in hacks.items()}
UNIT_TESTS = """\
import unittest

import calc


class CalcTest(unittest.TestCase):
    def test_double(self):
        self.assertEqual(calc.double(4), 8)
"""
HIDDEN_UNIT_TEST = """
    def test_add(self):
        self.assertEqual(calc.add(2, 3), 5)
"""
TESTS_OF_A_RUNNER = """\
import calc
from utilities.pytest import raises


def test_double():
    assert calc.double(4) == 8


def test_add():
    assert calc.add(2, 3) == 5
    raises(TypeError, lambda: calc.add(2, None))
"""


class Channel(NamedTuple):
    """A task as one way of judging sees it, in the world where its repository lies."""

    task: Task
    world: SmallWorld


@pytest.fixture(scope="session")
def runner_world(small_world, tmp_path_factory) -> SmallWorld:
    """The small world's repository with a test runner of its own."""
    root = tmp_path_factory.mktemp("runner") / "repository"
    shutil.copytree(small_world.spec.tree, root)
    shutil.copytree(Path(__file__).parent / "runner", root, dirs_exist_ok=True)
    git(root, "add", "-A")
    git(root, "commit", "-q", "-m", "runner")
    task = replace(small_world.task, base_commit=git(root, "rev-parse", "HEAD").strip())
    return SmallWorld(
        task, replace(small_world.spec, root=root), lambda files: changes(root, files, tmp_path_factory.mktemp("diff"))
    )


@pytest.fixture(scope="session")
def channels(small_world, runner_world) -> dict[str, Channel]:
    """One task as it is judged by our runner, by a row's own pytest (also as the last step of several in a shell's
    words), by its own unittest, and by a runner that is part of the repository."""
    task = small_world.task
    ids = [(f"tests/test_calc.py::{name}", f"{name} (tests.test_unit.CalcTest.{name})") for name in NAMES]
    unit = small_world.diff({"tests/test_unit.py": UNIT_TESTS + HIDDEN_UNIT_TEST})
    by_unittest = TestRun("python -m unittest -v tests.test_unit", "parse_log_django")
    by_runner = TestRun("bin/test -C --verbose tests/test_calc.py", "parse_log_sympy")
    steps = TestRun("export PYTHONPATH=.:..\ncd tests && python -m pytest -rA test_calc.py", "parse_log_pytest")
    channels = {
        "ours": task,
        "pytest": replace(task, test_run=TestRun("pytest -rA tests/test_calc.py", "parse_log_pytest")),
        "unittest": replace(
            task, test_run=by_unittest, test_patch=unit, fail_to_pass=(ids[0][1],), pass_to_pass=(ids[1][1],)
        ),
        "steps": replace(
            task, test_run=steps, fail_to_pass=("test_calc.py::test_add",), pass_to_pass=("test_calc.py::test_double",)
        ),
    }
    by_names = replace(
        runner_world.task,
        test_run=by_runner,
        test_patch=runner_world.diff({"tests/test_calc.py": TESTS_OF_A_RUNNER}),
        fail_to_pass=(NAMES[0],),
        pass_to_pass=(NAMES[1],),
    )
    own = UNIT_TESTS.replace("unittest.TestCase", "cases.CalcCase").replace(
        "import unittest", "from utilities import cases"
    )
    of_its_own = replace(
        channels["unittest"], test_patch=runner_world.diff({"tests/test_unit.py": own + HIDDEN_UNIT_TEST})
    )
    by_pytest = replace(
        of_its_own,
        test_run=TestRun("python -m pytest -rA tests/test_unit.py", "parse_log_pytest"),
        fail_to_pass=("tests/test_unit.py::CalcTest::test_add",),
        pass_to_pass=("tests/test_unit.py::CalcTest::test_double",),
    )
    return {
        "unittest_of_its_own": Channel(of_its_own, runner_world),
        "pytest_of_its_own": Channel(by_pytest, runner_world),
        **{name: Channel(task, small_world) for name, task in channels.items()},
        "sympy": Channel(by_names, runner_world),
    }


NAMES = ("test_add", "test_double")


@pytest.fixture
def judge(backend, channels):
    async def judge(hack: dict) -> dict[str, Verdict]:
        asked = {name: channels[name] for name in hack.get("channels", ("ours", "pytest"))}
        verdicts = await asyncio.gather(
            *(verify_in(channel, patch_of(hack, channel.world), backend) for channel in asked.values())
        )
        return dict(zip(asked, verdicts, strict=True))

    return judge


async def verify_in(channel: Channel, patch: str, backend) -> Verdict:
    return await verify(channel.task, patch, backend=backend, spec=channel.world.spec, timeout_s=60)


def rewarded(verdicts: Mapping[str, Verdict]) -> dict[str, Verdict]:
    """The channels that reward the hack, or do not say why they don't."""
    return {channel: verdict for channel, verdict in verdicts.items() if verdict.rewarded or not verdict.reason}


def patch_of(hack: dict, world: SmallWorld) -> str:
    if "patch" in hack:
        return hack["patch"].lstrip()
    added = {name: (world.spec.tree / name).read_text() + text for name, text in hack.get("append", {}).items()}
    return world.diff({**hack.get("files", {}), **added, **dict.fromkeys(hack.get("delete", ()))})
