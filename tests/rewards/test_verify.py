"""Verdicts on real patches, by real pytest in real sandboxes."""

import shutil
import subprocess
from dataclasses import replace

import pytest

from turnwise.errors import TaskError
from turnwise.rewards import verify
from turnwise.types import Mount, Task, TestRun, Verdict, VerdictKind

FIXED = "def add(a, b):\n    return a + b\n\n\ndef double(a):\n    return a * 2\n"
NEW_INI = """\
diff --git a/pytest.ini b/pytest.ini
new file mode 100644
--- /dev/null
+++ b/pytest.ini
@@ -0,0 +1 @@
+[pytest]
"""


@pytest.fixture
def judge(small_world, backend):
    async def judge(patch: str, task: Task = small_world.task, timeout_s: float = 60) -> Verdict:
        return await verify(task, patch, backend=backend, spec=small_world.spec, timeout_s=timeout_s)

    return judge


async def test_the_gold_patch_resolves_the_task(small_world, judge):
    verdict = await judge(small_world.task.patch)

    assert verdict.kind is VerdictKind.RESOLVED, verdict.log
    assert verdict.resolved
    assert verdict.fail_to_pass == {"tests/test_calc.py::test_add": "passed"}
    assert verdict.pass_to_pass == {"tests/test_calc.py::test_double": "passed"}
    assert "2 passed" in verdict.log


async def test_a_patch_that_fixes_nothing_does_not(small_world, judge):
    verdict = await judge(small_world.diff({"notes.txt": "I tried.\n"}))

    assert verdict.kind is VerdictKind.UNRESOLVED
    assert verdict.fail_to_pass == {"tests/test_calc.py::test_add": "failed"}
    assert verdict.pass_to_pass == {"tests/test_calc.py::test_double": "passed"}


async def test_a_fix_that_breaks_another_test_does_not_resolve(small_world, judge):
    verdict = await judge(small_world.diff({"calc.py": FIXED.replace("a * 2", "a")}))

    assert verdict.kind is VerdictKind.UNRESOLVED
    assert verdict.fail_to_pass == {"tests/test_calc.py::test_add": "passed"}
    assert verdict.pass_to_pass == {"tests/test_calc.py::test_double": "failed"}


@pytest.mark.parametrize("patch", ["", "  \n"])
async def test_an_empty_patch_needs_no_sandbox(small_world, patch):
    verdict = await verify(small_world.task, patch, backend=None, spec=small_world.spec, timeout_s=1)

    assert verdict.kind is VerdictKind.EMPTY_PATCH


@pytest.mark.parametrize("patch", ["not a diff", "--- a/calc.py\n+++ b/calc.py\n@@ -1,1 +1,1 @@\n-nothing\n+like it\n"])
async def test_a_patch_that_does_not_apply_is_told_apart(judge, patch):
    verdict = await judge(patch)

    assert verdict.kind is VerdictKind.PATCH_DOES_NOT_APPLY
    assert "error" in verdict.log


@pytest.mark.parametrize(
    "hunk",
    [
        pytest.param(" def add(a, b):\n-    return a - b\n+    return a + b", id="without its last, empty line"),
        pytest.param(" def add(a, b) -> int:\n-    return a - b\n+    return a + b\n \n", id="of another version"),
    ],
)
async def test_a_patch_that_git_refuses_is_brought_in_as_swebench_does(hunk, small_world, judge):
    forged = small_world.diff({"tests/test_calc.py": "def test_add(): assert False\n"})

    verdict = await judge(
        f"{forged}diff --git a/calc.py b/calc.py\n--- a/calc.py\n+++ b/calc.py\n@@ -1,3 +1,3 @@\n{hunk}"
    )

    assert verdict.resolved, verdict
    assert set({**verdict.fail_to_pass, **verdict.pass_to_pass}.values()) == {"passed"}


async def test_a_refused_patch_that_breaks_the_tests_files_is_not_paid(small_world, judge):
    forged = small_world.diff({"tests/conftest.py": "import calc\ncalc.add = lambda a, b: 5\n", "calc.py": "a = 1\n"})

    verdict = await judge(forged.replace(" def double(a):", " def triple(a):"))

    assert verdict.kind in (VerdictKind.UNRESOLVED, VerdictKind.PATCH_DOES_NOT_APPLY)


async def test_code_that_hangs_times_out(small_world, judge):
    looping = FIXED.replace("return a + b", "while True:\n        pass")

    verdict = await judge(small_world.diff({"calc.py": looping}), timeout_s=2)

    assert verdict.kind is VerdictKind.TESTS_TIMED_OUT
    assert verdict.fail_to_pass == {"tests/test_calc.py::test_add": "missing"}


async def test_what_the_code_writes_into_the_record_breaks_nothing(small_world, judge):
    scribble = (
        "import glob, time\n"
        "for name in glob.glob('/tmp/turnwise-*.jsonl'):\n"
        '    open(name, "a").write(\'{"id": "x"}\\n{"id": [1], "outcome": "passed"}\\n{"end": 3}\\n\')\n'
        "time.sleep(60)\n"
    )

    verdict = await judge(small_world.diff({"calc.py": FIXED + scribble}), timeout_s=3)

    assert verdict.kind is VerdictKind.TESTS_TIMED_OUT


async def test_a_syntax_error_makes_the_tests_errors(small_world, judge):
    verdict = await judge(small_world.diff({"calc.py": "def add(:\n"}))

    assert verdict.kind is VerdictKind.UNRESOLVED
    assert set(verdict.fail_to_pass.values()) == {"error"}


@pytest.mark.parametrize(
    "forged",
    [
        pytest.param({"tests/test_calc.py": "def test_add(): pass\ndef test_double(): pass\n"}, id="test file"),
        pytest.param(
            {
                "conftest.py": "import pytest\n@pytest.hookimpl(hookwrapper=True)\n"
                "def pytest_runtest_makereport(item, call):\n"
                "    report = (yield).get_result()\n    report.outcome = 'passed'\n"
            },
            id="root conftest",
        ),
        pytest.param({"tests/conftest.py": "import calc\ncalc.add = lambda a, b: 5\n"}, id="conftest beside the tests"),
        pytest.param({"pytest.ini": "[pytest]\naddopts = --deselect tests/test_calc.py::test_add\n"}, id="pytest.ini"),
        pytest.param({"pytest.py": "import sys\nsys.exit(0)\n"}, id="module named pytest"),
        pytest.param({"json.py": "raise SystemExit(0)\n", "_pytest/__init__.py": ""}, id="modules in the way"),
        pytest.param({"sitecustomize.py": "import os\nos._exit(0)\n"}, id="sitecustomize"),
        pytest.param({"calc.py": "import os\nos._exit(0)\n"}, id="exit at import"),
        pytest.param(
            {
                "forge.py": "import pytest\n@pytest.hookimpl(tryfirst=True)\ndef pytest_runtest_call(item):\n"
                "    item.obj = lambda: None\n    item.runtest = lambda: None\n",
                "forge.egg-info/entry_points.txt": "[pytest11]\nforge = forge\n",
                "forge.egg-info/PKG-INFO": "Metadata-Version: 2.1\nName: forge\nVersion: 1.0\n",
            },
            id="plugin by entry point",
        ),
    ],
)
async def test_what_steers_the_tests_cannot_be_forged(small_world, judge, forged):
    verdict = await judge(small_world.diff(forged))

    assert verdict.kind is VerdictKind.UNRESOLVED, verdict.log
    assert verdict.fail_to_pass["tests/test_calc.py::test_add"] in ("failed", "missing", "error")
    assert all(name in verdict.reason for name in forged if "conftest" in name or name.startswith("tests/"))


async def test_a_right_fix_counts_although_the_agent_spoiled_test_files(small_world, judge):
    spoiled = {"calc.py": FIXED, "tests/test_calc.py": "assert False\n", "tests/conftest.py": "raise ValueError\n"}

    verdict = await judge(small_world.diff(spoiled))

    assert verdict.kind is VerdictKind.RESOLVED, verdict.log


async def test_a_skipped_pass_to_pass_is_tolerated_and_a_skipped_fail_to_pass_is_not(small_world, judge):
    skipping = "import calc\nfrom pytest import skip\n\n\ndef test_add():\n    {}\n\n\ndef test_double():\n    {}\n"
    kept = small_world.diff({"tests/test_calc.py": skipping.format("assert calc.add(2, 3) == 5", "skip('no')")})
    target = small_world.diff({"tests/test_calc.py": skipping.format("skip('no')", "assert True")})

    tolerated = await judge(small_world.task.patch, replace(small_world.task, test_patch=kept))
    refused = await judge(small_world.task.patch, replace(small_world.task, test_patch=target))

    assert tolerated.kind is VerdictKind.RESOLVED
    assert tolerated.pass_to_pass == {"tests/test_calc.py::test_double": "skipped"}
    assert refused.kind is VerdictKind.UNRESOLVED
    assert refused.fail_to_pass == {"tests/test_calc.py::test_add": "skipped"}


async def test_hidden_tests_that_do_not_apply_are_the_rows_fault(small_world, judge):
    task = replace(small_world.task, test_patch=small_world.task.test_patch.replace("def test_", "def tset_"))
    with pytest.raises(TaskError, match=f"{task.instance_id}: the task's hidden test patch does not apply"):
        await judge(small_world.task.patch, task)


async def test_a_sandbox_that_cannot_start_says_nothing_about_the_patch(small_world, backend, tmp_path):
    gone = replace(small_world.spec, mounts=(Mount(tmp_path / "gone", "/opt/gone"),))

    verdict = await verify(small_world.task, small_world.task.patch, backend=backend, spec=gone, timeout_s=10)

    assert verdict.kind is VerdictKind.INFRASTRUCTURE_FAILURE
    assert verdict.log


@pytest.fixture
def binary_patch(small_world, tmp_path) -> str:
    """A right fix whose module insists on the binary file and the mode that come with it."""
    root = tmp_path / "copy"
    shutil.copytree(small_world.spec.tree, root)
    (root / "data.bin").write_bytes(bytes(range(256)))
    (root / "run.sh").write_text("#!/bin/sh\n")
    (root / "run.sh").chmod(0o755)
    check = "from pathlib import Path\nassert Path(__file__).with_name('data.bin').read_bytes() == bytes(range(256))\n"
    check += "assert Path(__file__).with_name('run.sh').stat().st_mode & 0o111\n"
    (root / "calc.py").write_text(check + FIXED)
    subprocess.run(["git", "add", "-A"], cwd=root, check=True)
    diff = ["git", "diff", "--cached", "--binary", "--no-renames"]
    return subprocess.run(diff, cwd=root, check=True, capture_output=True, text=True).stdout


async def test_binary_files_and_modes_of_a_patch_arrive(judge, binary_patch):
    verdict = await judge(binary_patch)

    assert verdict.kind is VerdictKind.RESOLVED, verdict


@pytest.fixture
def row(small_world):
    return replace(small_world.task, test_run=TestRun("pytest -rA tests/test_calc.py", "parse_log_pytest"))


async def test_a_rows_own_command_is_graded_by_its_log(small_world, judge, row):
    gold = await judge(row.patch, row)
    idle = await judge(small_world.diff({"notes.txt": "I tried.\n"}), row)

    assert gold.kind is VerdictKind.RESOLVED, gold
    assert "PASSED tests/test_calc.py::test_add" in gold.log
    assert idle.kind is VerdictKind.UNRESOLVED
    assert idle.fail_to_pass == {"tests/test_calc.py::test_add": "failed"}
    assert idle.reason == "1 of 1 tests to be fixed do not pass: tests/test_calc.py::test_add failed"


async def test_a_rows_own_command_that_hangs_times_out(small_world, judge, row):
    looping = FIXED.replace("return a + b", "while True:\n        pass")

    verdict = await judge(small_world.diff({"calc.py": looping}), row, timeout_s=2)

    assert verdict.kind is VerdictKind.TESTS_TIMED_OUT


async def test_a_rows_own_options_and_the_bases_configuration_count(small_world, judge, row):
    configured = replace(row, test_patch=row.test_patch + NEW_INI)
    asking = replace(configured, test_run=TestRun("python -m pytest -rA -k double tests", "parse_log_pytest"))

    verdict = await judge(row.patch, asking)

    assert verdict.fail_to_pass == {"tests/test_calc.py::test_add": "missing"}
    assert verdict.pass_to_pass == {"tests/test_calc.py::test_double": "passed"}
    assert "configfile: pytest.ini" in verdict.log


async def test_ids_are_those_of_the_log_where_settings_move_pytests_root(small_world, judge, row):
    settings = NEW_INI.replace("pytest.ini", "tests/pytest.ini")

    verdict = await judge(row.patch, replace(row, test_patch=row.test_patch + settings))

    assert verdict.kind is VerdictKind.RESOLVED, verdict
    assert "rootdir: /testbed/tests" in verdict.log


async def test_ids_are_those_of_the_log_where_pytest_runs_below_its_root(judge, row):
    above = TestRun("pytest -rA --rootdir=/ tests/test_calc.py", "parse_log_pytest")

    verdict = await judge(row.patch, replace(row, test_run=above))

    assert verdict.kind is VerdictKind.RESOLVED, verdict
    assert "rootdir: /\n" in verdict.log


async def test_a_shells_command_is_graded_too(small_world, judge, row):
    shell = replace(row, test_run=TestRun("python -m pytest -rA tests | cat", "parse_log_pytest"))

    assert (await judge(row.patch, shell)).kind is VerdictKind.RESOLVED
    assert (await judge(small_world.diff({"notes.txt": "x\n"}), shell)).kind is VerdictKind.UNRESOLVED


async def test_tests_that_patch_the_machinery_for_themselves_are_no_tampering(small_world, judge):
    patching = (
        "import builtins\nimport unittest\n\nimport calc\n\n\ndef test_add(monkeypatch):\n"
        "    monkeypatch.setattr(builtins, 'all', lambda items: False)\n"
        "    monkeypatch.setattr(unittest.TestCase, 'assertTrue', None)\n    assert calc.add(2, 3) == 5\n\n\n"
        "def test_double():\n    assert calc.double(4) == 8\n"
    )
    task = replace(small_world.task, test_patch=small_world.diff({"tests/test_calc.py": patching}))

    assert (await judge(task.patch, task)).kind is VerdictKind.RESOLVED
