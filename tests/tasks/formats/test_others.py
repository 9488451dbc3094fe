"""SWE-smith's, R2E-Gym's and SWE-bench Pro's rows."""

import json

import pytest

from turnwise.errors import TaskError
from turnwise.tasks.formats import task_of
from turnwise.types import TestRun

from .rows import COMMIT, PRO, R2E, SMITH, patch


def test_smith_brings_the_bug_and_undoing_it_is_the_solution():
    task = task_of(SMITH)
    assert task.environment.setup_patch == SMITH["patch"]
    assert task.patch == patch("lib/core.py", old="wrong", new="right").replace("@@ -1 +1 @@", "@@ -1,1 +1,1 @@")
    assert (task.repo, task.base_commit, task.test_patch) == ("swesmith/some__lib.1fd52536", "HEAD", "")
    assert task.meta["origin"] == "some/lib"
    assert task.meta["origin_commit"] == "1fd52536"
    assert task.environment.image == "jyangballin/swesmith.x86_64.some_1776_lib.1fd52536"
    command = "pytest -rA --disable-warnings --color=no --tb=no tests/test_core.py tests/test_more.py"
    assert task.test_run == TestRun(command, "parse_log_pytest")


def test_smiths_image_keeps_a_registry_that_it_names():
    assert task_of(SMITH | {"image_name": "own/lib__x"}).environment.image == "own/lib__x"


def test_r2e_tests_are_told_apart_by_the_logs_before_and_after():
    task = task_of(R2E)
    assert task.instance_id == f"python-pillow__Pillow-{COMMIT}"
    assert (task.repo, task.base_commit) == ("python-pillow/Pillow", COMMIT + "^")
    assert task.fail_to_pass == ("r2e_tests/test_1.py::T::test_a",)
    assert task.pass_to_pass == ("r2e_tests/test_1.py::test_b",)
    assert task.test_run.command == ('PATH="$PWD/.venv/bin:$PATH" python -W ignore r2e_tests/unittest_custom_runner.py')
    assert task.environment.image == R2E["docker_image"]
    assert task.created_at == "2020-01-02T03:04:05"


def test_r2e_patches_are_put_together_from_their_parts():
    task = task_of(R2E)
    assert task.patch == (
        "diff --git a/src/PIL/Draw.py b/src/PIL/Draw.py\n--- a/src/PIL/Draw.py\n+++ b/src/PIL/Draw.py\n"
        "@@ -1 +1,2 @@\n x = 1\n+y = 2\n\\ No newline at end of file\n"
    )
    assert "+++ b/r2e_tests/test_1.py\n@@ -0,0 +1,1 @@\n+def test_b(): pass\n" in task.test_patch
    assert task.test_patch.endswith("+runs = True\n\\ No newline at end of file\n")


def _r2e(field, **changes):
    return task_of(R2E | {field: json.dumps(json.loads(R2E[field]) | changes)})


def test_r2e_rows_that_make_no_task_are_refused():
    with pytest.raises(TaskError, match="field 'repo_name': 'left-pad' is no repository of R2E-Gym"):
        task_of(R2E | {"repo_name": "left-pad"})
    with pytest.raises(TaskError, match="field 'parsed_commit_content': changes no Python file"):
        _r2e("parsed_commit_content", file_diffs=[])
    with pytest.raises(TaskError, match="field 'execution_result_content': no test passes after"):
        _r2e("execution_result_content", new_commit_res_stdout="nothing")
    with pytest.raises(TaskError, match="field 'execution_result_content': names another number"):
        _r2e("execution_result_content", test_file_names=["test_1.py"])


def test_r2e_plain_pytest_and_a_screen_for_orange():
    names = {"test_file_names": ["test_1.py", "conftest.py"]}
    content = json.dumps(json.loads(R2E["execution_result_content"]) | names)
    task = task_of(R2E | {"repo_name": "orange3", "execution_result_content": content})
    assert task.test_run.command.endswith("xvfb-run --auto-servernum python -W ignore -m pytest -rA r2e_tests")


def test_pro_tells_requirements_and_interface_with_the_issue():
    task = task_of(PRO)
    assert task.problem_statement.startswith("Core is wrong.\n\nIt must be right.\n\nImplement these names")
    assert task.fail_to_pass == ("test/units/test_core.py::test_a",)
    assert task.pass_to_pass == ()
    assert (task.environment.image, task.environment.workdir) == (
        "jefzda/sweap-images:ansible.ansible-ansible__ansible-abc-v1",
        "/app",
    )
    assert task.test_run == TestRun("pytest -rA test/units/test_core.py", "parse_log_pytest")


def test_pro_in_other_languages_is_refused():
    with pytest.raises(TaskError, match="field 'repo_language': Input should be 'python'"):
        task_of(PRO | {"repo_language": "go"})
