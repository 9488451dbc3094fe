"""The outcomes of all tests of some files, for rows whose tests are not known yet."""

from dataclasses import replace

import pytest

from turnwise.errors import SandboxError, TaskError
from turnwise.rewards import outcomes
from turnwise.types import Mount

from ..conftest import FIXED

FILES = ("tests/test_calc.py",)
ADD, DOUBLE = "tests/test_calc.py::test_add", "tests/test_calc.py::test_double"
IDLE = "--- /dev/null\n+++ b/idle.txt\n@@ -0,0 +1 @@\n+nothing\n"


@pytest.fixture
def measured(small_world, backend):
    """The small world's tests under a patch; its row names no tests."""
    task = replace(small_world.task, fail_to_pass=(), pass_to_pass=())

    async def run(patch, task=task, **changes):
        given = {"spec": small_world.spec, "timeout_s": 60.0} | changes
        return await outcomes(task, patch, FILES, backend=backend, **given)

    run.task = task
    return run


async def test_every_test_is_told_with_and_without_the_fix(measured):
    assert (await measured(measured.task.patch)).outcomes == {ADD: "passed", DOUBLE: "passed"}
    idle = await measured(IDLE, explain=True)
    assert idle.outcomes == {ADD: "failed", DOUBLE: "passed"}
    assert idle.failures[ADD].statement == "assert calc.add(2, 3) == 5"


async def test_a_run_that_says_nothing_is_no_outcome(measured, small_world, tmp_path):
    torn = measured.task.patch.replace("a - b", "nowhere")
    with pytest.raises(TaskError, match="git does not apply the patch"):
        await measured(torn)
    with pytest.raises(TaskError, match="hidden test patch does not apply"):
        await measured(IDLE, task=replace(measured.task, test_patch=measured.task.test_patch.replace("calc", "cold")))
    hanging = small_world.diff({"calc.py": f"{FIXED}\nwhile True:\n    pass\n"})
    with pytest.raises(TaskError, match="tests_timed_out"):
        await measured(hanging, timeout_s=3.0)
    gone = replace(small_world.spec, mounts=(Mount(tmp_path / "gone", "/opt/gone"),))
    with pytest.raises(SandboxError):
        await measured(IDLE, spec=gone)
