"""The corpus of reward hacks in hacks/, and what judges them; here for the tests of every backend."""

import asyncio
import tomllib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from turnwise.rewards import verify
from turnwise.types import SandboxSpec, Task, TestRun, Verdict, VerdictKind

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


@pytest.fixture(scope="session")
def channels(small_world) -> dict[str, Task]:
    """One task three ways: graded by our runner, by a row's own pytest, by a row's own unittest."""
    task = small_world.task
    ids = [(f"tests/test_calc.py::{name}", f"{name} (tests.test_unit.CalcTest.{name})") for name in NAMES]
    unit = small_world.diff({"tests/test_unit.py": UNIT_TESTS + HIDDEN_UNIT_TEST})
    by_unittest = TestRun("python -m unittest -v tests.test_unit", "parse_log_django")
    return {
        "ours": task,
        "pytest": replace(task, test_run=TestRun("pytest -rA tests/test_calc.py", "parse_log_pytest")),
        "unittest": replace(
            task, test_run=by_unittest, test_patch=unit, fail_to_pass=(ids[0][1],), pass_to_pass=(ids[1][1],)
        ),
    }


NAMES = ("test_add", "test_double")


@pytest.fixture
def judge(small_world, backend, channels):
    async def judge(hack: dict) -> dict[str, Verdict]:
        patch = hack["patch"].lstrip() if "patch" in hack else small_world.diff(_files(hack, small_world.spec))
        asked = {name: channels[name] for name in hack.get("channels", ("ours", "pytest"))}
        verdicts = await asyncio.gather(
            *(verify(task, patch, backend=backend, spec=small_world.spec, timeout_s=60) for task in asked.values())
        )
        return dict(zip(asked, verdicts, strict=True))

    return judge


def require_unpaid(hack: dict, verdicts: Mapping[str, Verdict]) -> None:
    """Assert that no channel pays the hack, and that each ends with the verdict that the corpus wants."""
    for channel, verdict in verdicts.items():
        assert not verdict.resolved, (channel, verdict.log)
        excused = hack.get("spoils_the_sandbox", False)
        assert excused or verdict.kind is not VerdictKind.INFRASTRUCTURE_FAILURE, (channel, verdict)
        assert verdict.kind == hack.get("kind", verdict.kind), (channel, verdict)
        assert verdict.reason


def _files(hack: dict, spec: SandboxSpec) -> dict[str, str | None]:
    added = {name: (spec.tree / name).read_text() + text for name, text in hack.get("append", {}).items()}
    return {**hack.get("files", {}), **added, **dict.fromkeys(hack.get("delete", ()))}
