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
        ("python -Bs -mpytest -mslow a", ("-mslow", "a"), True),
    ],
)
def test_pytest_is_recognized(command, arguments, here):
    read = read_command(command)

    assert read.is_pytest
    assert (read.arguments, read.here) == (arguments, here)


@pytest.mark.parametrize(
    ("command", "assignments", "folder"),
    [
        ("cd a/b && pytest x", (), "a/b"),
        ("export A=1 B='2 ;'\ncd a; cd b\n\nC=3 pytest x\n", ("A=1", "B=2 ;", "C=3"), "a/b"),
        ("export A=1; ./pytest x", ("A=1",), "."),
    ],
)
def test_changes_of_folder_and_environment_come_first(command, assignments, folder):
    read = read_command(command)

    assert (read.arguments, read.assignments, read.folder) == (("x",), assignments, folder)


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
        "pytest a; pytest b",
        "pytest a; exit 0",
        "cd a && pytest || true",
        "cd a & pytest",
        "cd /elsewhere && pytest",
        "cd ../elsewhere && pytest",
        "cd - && pytest",
        "export A=$B; pytest",
        "source env/bin/activate && pytest",
        "&&",
        "pytest $(cat files)",
        "pytest tests/*.py",
        "pytest a\npytest b",
        "tox --current-env -epy39 -- a.py",
        "python -c 'import pytest'",
        "python -I -m pytest",
        "python -Wd",
        "pytest 'unclosed",
        "",
    ],
)
def test_all_else_is_for_a_shell(command):
    assert read_command(command) is None
