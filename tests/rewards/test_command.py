"""Where pytest is called in a row's own test command."""

import pytest

from turnwise.rewards.command import find_pytest


@pytest.mark.parametrize(
    ("command", "arguments", "module"),
    [
        ("pytest -rA tests/test_a.py", ("-rA", "tests/test_a.py"), False),
        ("pytest --no-header -rA -W 'ignore::x' a/b", ("--no-header", "-rA", "-W", "ignore::x", "a/b"), False),
        ("pytest -rA 'test_a.py::test_b[x;y]'", ("-rA", "test_a.py::test_b[x;y]"), False),
        ("PYTHONWARNINGS=ignore python3.9 -X dev -m pytest -rA", ("-rA",), True),
        ("python -Bs -mpytest -mslow a", ("-mslow", "a"), True),
        ("export A=1 B='2 ;'\ncd a; cd b\n\nC=3 pytest x\n", ("x",), False),
        ("cd ../elsewhere && pytest x", ("x",), False),
        ("source env/bin/activate && pytest x", ("x",), False),
        ("pytest a | cat", ("a",), False),
        ("pytest a || true; exit 0", ("a",), False),
        ("pytest $(cat files)", ("$(cat", "files)"), False),
    ],
)
def test_the_call_of_pytest_is_found(command, arguments, module):
    call = find_pytest(command)

    assert (call.arguments, call.module) == (arguments, module)


@pytest.mark.parametrize(
    ("command", "replaced"),
    [
        ("pytest -rA 'a b'", "python /r.py script -rA 'a b'"),
        ("/opt/env/bin/py.test a", "/opt/env/bin/python /r.py script a"),
        ("export A=$B; cd x && C=3 python -W error -m pytest x > log 2>&1", "export A=$B; cd x && C=3 python -W error "
         "/r.py module x > log 2>&1"),
    ],
)  # fmt: skip
def test_nothing_but_the_call_is_replaced(command, replaced):
    assert find_pytest(command).replaced_by("/r.py") == replaced


@pytest.mark.parametrize(
    "command",
    [
        "pytest a; pytest b",
        "pytest a\npytest b",
        "tox --current-env -epy39 -- a.py",
        "python -c 'import pytest'",
        "python -I -m pytest",
        "python -Wd",
        "./tests/runtests.py pytest",
        "echo pytest",
        "pytest 'unclosed; pytest",
        "&&",
        "",
    ],
)
def test_of_other_commands_nothing_is_recorded(command):
    call = find_pytest(command)
    assert call is None or command.startswith("pytest 'unclosed")
