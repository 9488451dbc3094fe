"""SWE-rebench's rows, both versions."""

import pytest

from turnwise.errors import TaskError
from turnwise.tasks.formats import task_of
from turnwise.types import Checkout, Installation, TestRun

from .rows import REBENCH, REBENCH_V2


def test_version_1_brings_its_installation():
    task = task_of(REBENCH)
    assert task.environment == Checkout(
        Installation(
            python="3.9",
            pre_install=("apt-get update", "apt-get install -y gcc"),
            requirements="pytest==8.3.5\n",
            requirement_files=("requirements.txt",),
            environment="name: lib\ndependencies:\n  - python=3.9\n",
            pip_packages=("pytest", "pytest-cov", "numpy<2"),
            install=("pip install -e .[dev]",),
            env={"A": "1"},
        ),
        image="swerebench/sweb.eval.x86_64.some_1776_lib-6",
    )
    assert task.test_run == TestRun("pytest -rA --color=no tests/test_core.py", "parse_log_pytest")
    assert task.pass_to_pass == ('tests/test_core.py::test_b["x"]', "tests/test_core.py::test_c")


def test_an_install_config_may_be_written_as_python_prints_it():
    assert task_of(REBENCH | {"install_config": str(REBENCH["install_config"])}) == task_of(REBENCH)


def test_packages_are_a_file_or_names():
    config = REBENCH["install_config"] | {"packages": "numpy scipy", "pip_packages": None}
    installation = task_of(REBENCH | {"install_config": config}).environment.installation
    assert installation.pip_packages == ("numpy", "scipy")


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"python": None}, "install_config.python"),
        ({"test_cmd": ""}, "install_config.test_cmd"),
        ({"pip_packages": ["'open"]}, "install_config.pip_packages"),
    ],
)
def test_a_fault_in_the_install_config_is_named(change, field):
    with pytest.raises(TaskError, match=f"field '{field}'"):
        task_of(REBENCH | {"install_config": REBENCH["install_config"] | change})


def test_version_2_is_run_as_its_image_was():
    task = task_of(REBENCH_V2)
    assert task.environment == Checkout(
        Installation(python="3.9", install=("pip install -r requirements.txt -e .",)),
        image="docker.io/swerebenchv2/some-lib:7",
        workdir="/lib",
    )
    assert task.test_run == TestRun("export CI=1\npytest -rA", "parse_log_pytest")
    assert task.problem_statement.endswith("tests call them:\n\nFunction: core(x) in lib/core.py")
    assert task.created_at == "2020-12-30T03:14:33+00:00"
    assert task.meta["language"] == "python"


@pytest.mark.parametrize(
    ("base", "specs", "python"),
    [
        ("python_3.11", None, "3.11"),
        ("x", {"python_version": "3.7", "go_version": None}, "3.7"),
        ("x", {"python_version": None, "python_image": "python:3.10-slim"}, "3.10"),
        ("go_1.22.12", {"go_version": "1.22"}, ""),
    ],
)
def test_version_2s_python_is_that_of_its_base_image(base, specs, python):
    config = REBENCH_V2["install_config"] | {"base_image_name": base, "docker_specs": specs}
    assert task_of(REBENCH_V2 | {"install_config": config}).environment.installation.python == python
