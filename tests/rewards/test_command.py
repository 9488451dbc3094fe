"""Which commands are plain calls of pytest or another Python program."""

import pytest

from turnwise.rewards.command import read_command


@pytest.mark.parametrize(
    ("command", "arguments", "here"),
    [
        ("pytest -rA tests/test_a.py", ("-rA", "tests/test_a.py"), False),
        ("pytest --no-header -rA -W 'ignore::x' a/b", ("--no-header", "-rA", "-W", "ignore::x", "a/b"), False),
        ("pytest -rA 'test_a.py::test_b[x;y]'", ("-rA", "test_a.py::test_b[x;y]"), False),
        ("/opt/env/bin/py.test a", ("a",), False),
        ("PYTHONWARNINGS=ignore python3.9 -X dev -m pytest -rA", ("-rA",), True),
    ],
)
def test_pytest_is_recognized(command, arguments, here):
    read = read_command(command)

    assert read.is_pytest
    assert (read.arguments, read.here) == (arguments, here)


@pytest.mark.parametrize(
    ("command", "program"),
    [
        ("./tests/runtests.py --verbosity 2 admin", ("./tests/runtests.py",)),
        ("PYTHONWARNINGS='ignore::UserWarning' bin/test -C --verbose a.py", ("bin/test",)),
        ("python -W error -m unittest -v a.b", ("-m", "unittest")),
        ("python setup.py test", ("setup.py",)),
    ],
)
def test_other_python_programs_are_recognized(command, program):
    read = read_command(command)

    assert read.program == program
    assert not read.is_pytest


@pytest.mark.parametrize(
    "command",
    [
        "cd a && pytest",
        "pytest a; pytest b",
        "pytest $(cat files)",
        "pytest tests/*.py",
        "pytest a\npytest b",
        "tox --current-env -epy39 -- a.py",
        "python -c 'import pytest'",
        "pytest 'unclosed",
        "",
    ],
)
def test_all_else_is_for_a_shell(command):
    assert read_command(command) is None
