"""Which Python a task is run with."""

import sys
from datetime import date
from pathlib import Path

import pytest

from turnwise.errors import TaskError
from turnwise.tasks.checkout.pythons import by_fitness, find_python, pick_python

RUNNING = f"{sys.version_info[0]}.{sys.version_info[1]}"


def test_the_running_python_is_found_with_its_prefix():
    found = find_python(RUNNING)
    assert found is not None
    assert (found.prefix, found.minor) == (Path(sys.base_prefix), RUNNING)
    assert found.executable.is_relative_to(found.prefix)


def test_a_program_of_the_name_that_does_not_start_or_lies_is_passed_over(tmp_path, monkeypatch):
    for minor, script in (("3.1", "exit 1"), ("3.2", "echo /usr; echo 3.3.0")):
        (tmp_path / f"python{minor}").write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / f"python{minor}").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    assert find_python("3.1") is None
    assert find_python("3.2") is None


def test_pyenvs_and_uvs_pythons_are_found(tmp_path, monkeypatch):
    for place, variable in (
        ("versions/3.1.7", "PYENV_ROOT"),
        ("cpython-3.2.1-linux-x86_64-gnu", "UV_PYTHON_INSTALL_DIR"),
    ):
        minor = "3.1" if "versions" in place else "3.2"
        program = tmp_path / place / "bin" / f"python{minor}"
        program.parent.mkdir(parents=True)
        program.write_text(f"#!/bin/sh\necho {tmp_path / place}\necho {minor}.7\n")
        program.chmod(0o755)
        monkeypatch.setenv(variable, str(tmp_path))
    assert [find_python(minor).prefix for minor in ("3.1", "3.2")] == [
        tmp_path / "versions/3.1.7",
        tmp_path / "cpython-3.2.1-linux-x86_64-gnu",
    ]


def test_a_version_that_is_not_there_is_named_with_the_row_and_what_to_do(tmp_path):
    with pytest.raises(TaskError, match=r"^row-1: its row wants Python 3\.2, .*`uv python install 3\.2`"):
        pick_python("row-1", "3.2", tmp_path, date(2020, 1, 1))


@pytest.mark.parametrize(
    ("day", "metadata", "first"),
    [
        (date(2021, 1, 1), "", ["3.8", "3.7"]),  # 3.9 is three months old, and nothing says that it will do
        (date(2021, 1, 1), '"Programming Language :: Python :: 3.9"', ["3.9", "3.8"]),
        (date(2021, 1, 1), 'python_requires="<3.8"', ["3.7", "3.6"]),
        (date(2014, 1, 1), "", ["3.5", "3.6"]),
        (date(2024, 1, 1), 'requires-python = ">=3.9,<3.11"', ["3.10", "3.9"]),
        (date(2024, 1, 1), "Python :: 3.6\nProgramming Language :: Python :: 3.6", ["3.6", "3.11"]),
    ],
)
def test_where_the_row_names_none_the_date_and_the_metadata_decide(tmp_path, day, metadata, first):
    (tmp_path / "setup.py").write_text(metadata)
    assert by_fitness(tmp_path, day)[:2] == first
