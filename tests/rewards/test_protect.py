"""What of a patch reaches the hidden tests, by real git."""

import subprocess
from dataclasses import replace

import pytest

from turnwise.rewards.protect import apply_options, configuration_of, touched_files
from turnwise.types import TestRun

LINE = "@@ -0,0 +1 @@\n+x\n"


def new_file(path: str) -> str:
    return f"diff --git a/{path} b/{path}\nnew file mode 100644\n--- /dev/null\n+++ b/{path}\n{LINE}"


@pytest.fixture
def applied(small_world, tmp_path):
    """The files that a patch of the given new files makes."""

    def applied(task, *paths: str) -> set[str]:
        subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
        patch = "".join(new_file(path) for path in paths)
        command = ["git", "apply", *apply_options(task, patch)]
        subprocess.run(command, cwd=tmp_path, input=patch, text=True, check=True)
        return {path for path in paths if (tmp_path / path).is_file()}

    return applied


def test_source_arrives_and_what_steers_tests_does_not(small_world, applied):
    source = {"pkg/new.py", "docs/tests.md", "pkg/testing/helper.py", "latest/a.py", "a [b]*.py"}
    steering = {
        "conftest.py",
        "pkg/conftest.py",
        "tests/helper.py",
        "tests/deep/test_other.py",
        "tests/test_calc/__init__.py",
        "setup.cfg",
        "tests/pytest.ini",
        "sitecustomize.py",
        "src/usercustomize/__init__.py",
        "a.pth",
        "x.egg-info/entry_points.txt",
        "calc.pyc",
        "calc.cpython-311-x86_64-linux-gnu.so",
    }

    assert applied(small_world.task, *source, *steering) == source


def test_what_the_gold_patch_changes_is_source_wherever_it_lies(small_world, applied):
    gold = new_file("tests/tool [1].py") + new_file("fixtures/a.json") + new_file("setup.cfg") + new_file("conftest.py")
    task = replace(small_world.task, patch=gold)

    other = ("tests/other.py", "fixtures/b.json", "pkg/test_data/sums.csv")
    assert applied(task, "tests/tool [1].py", "fixtures/a.json", "setup.cfg", "conftest.py", *other) == {
        "tests/tool [1].py",
        "fixtures/a.json",
        "pkg/test_data/sums.csv",
    }


def test_what_lies_beside_hidden_tests_is_not_the_patchs(small_world, applied):
    task = replace(small_world.task, fail_to_pass=("e2e/test_calc.py::test_add",))

    assert applied(task, "e2e/cases.py", "pkg/cases.py") == {"pkg/cases.py"}


def test_a_test_program_of_the_repository_is_not_the_patchs(small_world, applied):
    task = replace(small_world.task, test_run=TestRun("bin/test -C sympy/a.py", "parse_log_sympy"))

    steering = ("bin/test", "bin/get_sympy.py", "sympy/testing/runtests.py", "django/test/runner.py")
    steering += ("sympy/utilities/runtests.py", "sympy/utilities/pytest.py")
    assert applied(task, "sympy/core.py", "other/bin/a.py", *steering) == {"sympy/core.py", "other/bin/a.py"}


def test_a_test_program_that_the_gold_patch_changes_is_source(small_world, applied):
    gold = new_file("sympy/utilities/runtests.py")
    task = replace(small_world.task, patch=gold, test_run=TestRun("bin/test sympy/a.py", "parse_log_sympy"))

    steering = ("sympy/utilities/runtests.py", "sympy/utilities/pytest.py")
    assert applied(task, *steering) == {"sympy/utilities/runtests.py"}


def test_hidden_files_are_told_from_the_folder_where_the_command_runs(small_world, applied):
    run = TestRun("cd checks && pytest -rA test_a.py", "parse_log_pytest")
    task = replace(small_world.task, test_run=run, fail_to_pass=("test_a.py::test_a",))

    assert applied(task, "checks/test_a.py", "test_a.py") == {"test_a.py"}


def test_configuration_that_both_change_is_the_gold_patchs(small_world):
    task = replace(small_world.task, patch=new_file("a.py") + new_file("setup.cfg"))

    assert configuration_of(task, new_file("setup.cfg")) == new_file("setup.cfg")
    assert configuration_of(task, new_file("a.py")) == ""


def test_binary_files_modes_and_renames_are_touched_too():
    patch = (
        "diff --git a/run.sh b/run.sh\nold mode 100644\nnew mode 100755\n"
        "diff --git a/old.py b/new.py\nsimilarity index 100%\nrename from old.py\nrename to new.py\n"
        "diff --git a/i.png b/i.png\nindex 1..2 100644\nGIT binary patch\nliteral 1\nIcmZPo000310RR91\n"
    )

    assert touched_files(patch) == {"run.sh", "old.py", "new.py", "i.png"}


@pytest.mark.parametrize(
    ("old", "kept"),
    [
        ("pkg/data.json", False),
        ("pkg/test_a/deep/data.json", True),
        ("pkg/test_a.py", True),
        ("deep/conftest.py", True),
        ("tests/caf\u00e9.json", True),
        ("tests/a\tb", True),
    ],
)
def test_what_steers_the_tests_is_not_moved_away(old, kept, small_world, tmp_path):
    task = replace(small_world.task, fail_to_pass=("pkg/test_a.py::test_a", "tests/test_b.py::test_b"))
    git = ("git", "-c", "user.name=a", "-c", "user.email=a@b", "-C", str(tmp_path))
    (tmp_path / old).parent.mkdir(parents=True)
    (tmp_path / old).write_text("{}")
    for words in (("init", "-q"), ("add", "-A"), ("commit", "-qm", "a"), ("mv", old, "new.json")):
        subprocess.run([*git, *words], check=True)
    patch = subprocess.run([*git, "diff", "HEAD", "-M"], check=True, capture_output=True, text=True).stdout
    subprocess.run([*git, "reset", "-q", "--hard"], check=True)

    subprocess.run([*git, "apply", *apply_options(task, patch)], input=patch, text=True, check=True)

    assert "rename from" in patch
    assert (tmp_path / old).exists() == kept != (tmp_path / "new.json").exists()
