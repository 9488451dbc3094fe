"""One small row in the shape of each format, written by hand after the formats' own documents."""

import json

COMMIT = "c" * 40


def patch(path: str, old: str = "1", new: str = "2") -> str:
    """A git diff that changes the one line of a file."""
    return f"diff --git a/{path} b/{path}\n--- a/{path}\n+++ b/{path}\n@@ -1 +1 @@\n-{old}\n+{new}\n"


DELETION = (
    "diff --git a/tests/old.py b/tests/old.py\ndeleted file mode 100644\n--- a/tests/old.py\n+++ /dev/null\n"
    "@@ -1 +0,0 @@\n-1\n"
)

CLASSIC = {
    "repo": "django/django",
    "instance_id": "django__django-12345",
    "base_commit": COMMIT,
    "patch": patch("django/db/models.py"),
    "test_patch": patch("tests/model_fields/tests.py") + patch("tests/model_fields/data.json") + DELETION,
    "problem_statement": "Fields are wrong.",
    "hints_text": "look at models",
    "created_at": "2020-01-02T03:04:05Z",
    "version": "3.1",
    "FAIL_TO_PASS": json.dumps(["test_a (model_fields.tests.FieldTests)"]),
    "PASS_TO_PASS": "[]",
    "environment_setup_commit": "d" * 40,
    "difficulty": "<15 min fix",
}

SCRIPT = f"""#!/bin/bash
set -uxo pipefail
source /opt/miniconda3/bin/activate
conda activate testbed
cd /testbed
sed -i '/en_US.UTF-8/s/^# //g' /etc/locale.gen && locale-gen
sed -i 's/a/b/' setup.cfg
export LANG=en_US.UTF-8
export LANGUAGE=en_US:en LC_ALL=en_US.UTF-8
export PYTHONPATH=${{PYTHONPATH:-}}:$(pwd)
git config --global --add safe.directory /testbed
cd /testbed
git status
git show
git -c core.fileMode=false diff {COMMIT}
source /opt/miniconda3/bin/activate
conda activate testbed
python setup.py install
git checkout {COMMIT} tests/model_fields/tests.py
git apply -v - <<'EOF_114329324912'
diff --git a/tests/model_fields/tests.py b/tests/model_fields/tests.py
+: '>>>>> Start Test Output'
+export NOT=this
EOF_114329324912
make assets
: '>>>>> Start Test Output'
./tests/runtests.py --verbosity 2 model_fields.tests
: '>>>>> End Test Output'
git checkout {COMMIT} tests/model_fields/tests.py
"""

SCRIPTED = CLASSIC | {
    "eval_script": SCRIPT,
    "log_parser": "parse_log_django",
    "eval_type": "pass_and_fail",
    "image": "somewhere/django:12345",
}

GYM = {
    "instance_id": "getmoto__moto-1234",
    "repo": "getmoto/moto",
    "base_commit": COMMIT,
    "patch": patch("moto/core.py"),
    "test_patch": patch("tests/test_core.py"),
    "problem_statement": "Core is wrong.",
    "hints_text": "",
    "created_at": "2020-01-02 03:04:05",
    "version": "4.1",
    "FAIL_TO_PASS": ["tests/test_core.py::test_a"],
    "PASS_TO_PASS": ["tests/test_core.py::test_b"],
}

REBENCH = {
    "instance_id": "some__lib-6",
    "repo": "some/lib",
    "base_commit": COMMIT,
    "patch": patch("lib/core.py"),
    "test_patch": patch("tests/test_core.py"),
    "problem_statement": "Core is wrong.",
    "version": "0.2",
    "environment_setup_commit": COMMIT,
    "FAIL_TO_PASS": ["tests/test_core.py::test_a"],
    "PASS_TO_PASS": "['tests/test_core.py::test_b[\"x\"]', 'tests/test_core.py::test_c']",
    "FAIL_TO_FAIL": [],
    "PASS_TO_FAIL": [],
    "license_name": "MIT License",
    "docker_image": "swerebench/sweb.eval.x86_64.some_1776_lib-6",
    "requirements": "pytest==8.3.5\n",
    "environment": "name: lib\ndependencies:\n  - python=3.9\n",
    "meta": {"is_lite": True, "llm_score": {"difficulty_score": 0, "issue_text_score": 1, "test_score": 2}},
    "install_config": {
        "python": "3.9",
        "install": "pip install .[dev]",
        "pre_install": ["apt-get update", "apt-get install -y gcc"],
        "pip_packages": ["pytest pytest-cov", "'numpy<2'"],
        "packages": "requirements.txt",
        "reqs_path": ["requirements.txt"],
        "env_yml_path": None,
        "env_vars": {"A": "1", "OTHERS": None},
        "no_use_env": None,
        "test_cmd": "pytest -rA --color=no",
        "log_parser": "parse_log_pytest",
    },
}

REBENCH_V2 = {
    "instance_id": "some__lib-7",
    "repo": "some/lib",
    "base_commit": COMMIT,
    "created_at": 1609298073000,
    "patch": patch("lib/core.py"),
    "test_patch": patch("tests/test_core.py"),
    "problem_statement": "Core is wrong.",
    "interface": "Function: core(x) in lib/core.py",
    "language": "python",
    "meta": {"llm_metadata": [{"code": "A"}]},
    "FAIL_TO_PASS": ["tests/test_core.py::test_a"],
    "PASS_TO_PASS": ["tests/test_core.py::test_b"],
    "image_name": "docker.io/swerebenchv2/some-lib:7",
    "install_config": {
        "base_image_name": "python_3.9:latest",
        "docker_specs": None,
        "install": ["pip install -r requirements.txt .", ""],
        "test_cmd": ["export CI=1", "pytest -rA"],
        "log_parser": "parse_log_pytest",
    },
}

SMITH = {
    "instance_id": "some__lib.1fd52536.combine_file__09vlzwgb",
    "repo": "swesmith/some__lib.1fd52536",
    "patch": patch("lib/core.py", old="right", new="wrong"),
    "FAIL_TO_PASS": ["tests/test_core.py::test_a"],
    "PASS_TO_PASS": ["tests/test_core.py::test_b", "tests/test_more.py::test_c"],
    "image_name": "swesmith.x86_64.some__lib.1fd52536",
    "problem_statement": "It is wrong.",
}

PRO = {
    "instance_id": "instance_ansible__ansible-abc-v1",
    "repo": "ansible/ansible",
    "base_commit": COMMIT,
    "patch": patch("lib/core.py"),
    "test_patch": patch("test/units/test_core.py"),
    "problem_statement": "Core is wrong.",
    "requirements": "It must be right.",
    "interface": "Function: core(x)",
    "repo_language": "python",
    "fail_to_pass": "['test/units/test_core.py::test_a']",
    "pass_to_pass": "[]",
    "before_repo_set_cmd": "git reset --hard",
    "selected_test_files_to_run": '["test/units/test_core.py"]',
    "dockerhub_tag": "ansible.ansible-ansible__ansible-abc-v1",
}


def _hunk(*lines: tuple[str, str]) -> dict[str, object]:
    ranges = {"old_range": {"start": 1, "length": None}, "new_range": {"start": 1, "length": 2}}
    parsed = [{"type": kind, "content": content} for kind, content in lines]
    return {"descriptor": ranges | {"section": ""}, "line_group": {"all_lines": parsed}}


def _file_diff(path: str) -> dict[str, object]:
    return {
        "old_file_content": "",
        "new_file_content": "",
        "header": {"file": {"path": path}, "misc_line": None},
        "is_binary_file": False,
        "minus_file": {"path": f"a/{path}"},
        "plus_file": {"path": f"b/{path}"},
        "hunks": [_hunk(("context", "x = 1"), ("added", "y = 2"), ("note", "No newline at end of file"))],
    }


def _log(*passed: str) -> str:
    return "PASSED by chance\n=== short test summary info ===\n" + "".join(f"PASSED {name}\n" for name in passed)


R2E = {
    "repo_name": "pillow",
    "docker_image": "namanjain12/pillow_final:" + COMMIT,
    "commit_hash": COMMIT,
    "problem_statement": "Drawing is wrong.",
    "expected_output_json": json.dumps(
        {"T.test_a": "PASSED", "\x1b[1mtest_b\x1b[0m": "PASSED", "test_c - because": "FAILED"}
    ),
    "parsed_commit_content": json.dumps(
        {
            "file_diffs": [_file_diff("src/PIL/Draw.py"), _file_diff("Tests/test_draw.py"), _file_diff("notes.rst")],
            "old_commit_hash": COMMIT + "^",
            "new_commit_hash": COMMIT,
            "commit_message": "Fix it",
            "commit_date": "2020-01-02T03:04:05",
        }
    ),
    "execution_result_content": json.dumps(
        {
            "repo_name": "pillow",
            "new_commit_hash": COMMIT,
            "test_file_codes": ["def test_b(): pass\n", "runs = True"],
            "test_file_names": ["test_1.py", "unittest_custom_runner.py"],
            "new_commit_res_stdout": _log("r2e_tests/test_1.py::T::test_a", "r2e_tests/test_1.py::test_b"),
            "old_commit_res_stdout": _log("r2e_tests/test_1.py::test_b"),
        }
    ),
}

ALL = {
    "SWE-bench": CLASSIC,
    "SWE-bench (scripted)": SCRIPTED,
    "SWE-Gym": GYM,
    "SWE-rebench v1": REBENCH,
    "SWE-rebench v2": REBENCH_V2,
    "SWE-smith": SMITH,
    "SWE-bench Pro": PRO,
    "R2E-Gym": R2E,
}
