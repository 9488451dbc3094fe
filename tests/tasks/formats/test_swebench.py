"""SWE-bench's and SWE-Gym's rows: what is looked up, and what a script says instead."""

import pytest

from turnwise.tasks.formats import task_of
from turnwise.types import Checkout, Installation, TestRun

from .rows import CLASSIC, GYM, SCRIPTED, patch


def test_a_classic_row_is_installed_and_tested_by_what_is_known_of_its_repository():
    task = task_of(CLASSIC)
    assert task.environment == Checkout(
        Installation(
            python="3.6",
            requirement_files=("tests/requirements/py3.txt",),
            install=("python -m pip install -e .",),
            env={"LANG": "C.UTF-8", "LC_ALL": "C.UTF-8"},
        ),
        image="swebench/sweb.eval.x86_64.django_1776_django-12345:latest",
    )
    official = "./tests/runtests.py --verbosity 2 --settings=test_sqlite --parallel 1"
    assert task.test_run == TestRun(f"{official} model_fields.tests", "parse_log_django")
    assert task.fail_to_pass == ("test_a (model_fields.tests.FieldTests)",)
    assert task.pass_to_pass == ()
    assert (task.hints_text, task.environment_setup_commit) == ("look at models", "d" * 40)


@pytest.mark.parametrize(
    ("repo", "version", "command"),
    [
        ("django/django", "1.9", "./tests/runtests.py --verbosity 2 a.b"),
        ("sympy/sympy", "1.4", "PYTHONWARNINGS='ignore::UserWarning,ignore::SyntaxWarning' bin/test -C --verbose"),
        ("sphinx-doc/sphinx", "4.0", "pytest -rA --durations 25 tests/a/b.py"),
        ("astropy/astropy", "1.3", "pytest -rA -vv -o console_output_style=classic --tb=no tests/a/b.py"),
        ("mwaskom/seaborn", "0.12", "pytest --no-header -rA tests/a/b.py"),
        ("psf/requests", "2.3", "pytest -rA tests/a/b.py"),
    ],
)
def test_test_commands_by_repository(repo, version, command):
    row = CLASSIC | {"repo": repo, "version": version, "test_patch": patch("tests/a/b.py")}
    assert task_of(row).test_run.command.startswith(command)


def test_a_test_file_with_a_space_is_quoted():
    row = CLASSIC | {"repo": "psf/requests", "version": "2.3", "test_patch": patch("tests/a b.py")}
    assert task_of(row).test_run.command == "pytest -rA 'tests/a b.py'"


def test_a_script_goes_before_what_is_known():
    task = task_of(SCRIPTED)
    installation = task.environment.installation
    assert installation.python == "3.6"  # a script leaves it to the image
    assert installation.requirement_files == ("tests/requirements/py3.txt",)
    assert installation.pre_install == ("sed -i 's/a/b/' setup.cfg",)
    assert installation.install == ("python -m pip install -e .",)
    assert installation.env == {"LANG": "C.UTF-8", "LANGUAGE": "en_US:en", "LC_ALL": "C.UTF-8"}
    assert task.environment.image == "somewhere/django:12345"
    assert task.test_run == TestRun(
        "export PYTHONPATH=${PYTHONPATH:-}:$(pwd)\nmake assets\n./tests/runtests.py --verbosity 2 model_fields.tests",
        "parse_log_django",
    )


def test_a_script_of_an_unknown_repository_says_all_there_is():
    task = task_of(SCRIPTED | {"repo": "some/lib", "version": "", "image": None})
    assert task.environment.installation.python == ""
    assert task.environment.image == ""


def test_swe_gym_has_images_of_its_own():
    task = task_of(GYM)
    assert task.environment.image == "xingyaoww/sweb.eval.x86_64.getmoto_s_moto-1234:latest"
    assert task.environment.installation.python == "3.12"
    assert task.test_run == TestRun("pytest -n0 -rA tests/test_core.py", "parse_log_pytest")


def test_mypy_is_tested_by_the_cases_of_its_data_files():
    case = patch("test-data/unit/check.test", new="[case testOne]").replace("+[case", "+[case testTwo]\n+[case")
    case = case.replace("+1 @@", "+1,2 @@")
    row = GYM | {"repo": "python/mypy", "version": "1.4", "test_patch": case}
    assert task_of(row).test_run.command == 'pytest -n0 -rA -k "testTwo or testOne"'
