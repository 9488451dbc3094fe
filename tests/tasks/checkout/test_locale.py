"""A locale that is not UTF-8 changes nothing: the gate over a project with names and texts beyond ASCII."""

import json
import os
import subprocess
import sys
from dataclasses import replace

import pytest

from turnwise.tasks import write_tasks
from turnwise.types import TestRun

NAME = "tests/test_né.py"
TEST = "import tiny\n\n\ndef test_add():\n    assert tiny.add(2, 3) == 5, 'größer → 5'\n"


def asciis(folder):
    return {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}


def chinese(folder):
    """Made where the C library's sources of locales are installed."""
    command = ["localedef", "-i", "zh_CN", "-f", "GBK", folder / "zh_CN.GBK"]
    try:
        subprocess.run(command, check=True, capture_output=True)
    except FileNotFoundError:
        pytest.skip("no localedef to make the locale zh_CN.GBK with")
    except subprocess.CalledProcessError as error:
        pytest.skip(f"localedef cannot make the locale zh_CN.GBK: {error.stderr.decode(errors='replace').strip()}")
    return {"LC_ALL": "zh_CN.GBK", "LOCPATH": str(folder), "PYTHONUTF8": "0"}


@pytest.fixture
def row(upstream, git, tmp_path):
    """(file of one task, folder of repositories); the gold patch and the hidden tests hold more than ASCII."""
    (repos := tmp_path / "repos").mkdir()
    git(repos, "clone", "-q", str(upstream.folder), "acme__tiny")
    folder = repos / "acme__tiny"
    git(folder, "checkout", "-q", upstream.base)
    (folder / "src/tiny/é.txt").write_text("größer\n", encoding="utf-8")
    (folder / NAME).write_text(TEST.replace("5", "-1"), encoding="utf-8")
    git(folder, "add", "-A")
    git(folder, "commit", "-q", "-m", "größer")
    base = git(folder, "rev-parse", "HEAD")
    (folder / "src/tiny/__init__.py").write_text("def add(a, b):\n    return a + b  # größer → 5\n", encoding="utf-8")
    (folder / NAME).write_text(TEST, encoding="utf-8")
    patches = [git(folder, "diff", "--", path) + "\n" for path in ("src", "tests")]
    git(folder, "checkout", "-q", ".")
    task = replace(
        upstream.task(),
        base_commit=base,
        patch=patches[0],
        test_patch=patches[1],
        fail_to_pass=(f"{NAME}::test_add",),
        pass_to_pass=(),
        test_run=TestRun(f"pytest -rA {NAME}", "parse_log_pytest"),
        problem_statement="größer → 5",
    )
    write_tasks(tmp_path / "rows.jsonl", [task])
    return tmp_path / "rows.jsonl", repos


@pytest.mark.parametrize("locale", [asciis, chinese])
def test_a_task_is_shown_built_and_judged_under_another_locale(row, tmp_path, locale):
    rows, repos = row
    (locales := tmp_path / "locales").mkdir()
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("LC_", "LANG", "PYTHONIOENCODING"))}
    environment |= {"TURNWISE_CACHE": str(tmp_path / "cache"), **locale(locales)}

    def turnwise(*arguments):
        command = [sys.executable, "-m", "turnwise.cli", "tasks", *map(str, arguments)]
        done = subprocess.run(command, env=environment, capture_output=True, check=False)
        assert done.returncode == 0, done.stderr.decode(errors="replace") + done.stdout.decode(errors="replace")
        return done.stdout.decode("utf-8")

    assert "größer → 5" in turnwise("show", "acme__tiny-7", rows, "--solution")
    gate = tmp_path / "verdicts.jsonl"
    turnwise("validate", rows, "--repos", repos, "--out", gate, "--repeats", 1, "--workers", 1)
    verdict = json.loads(gate.read_text(encoding="utf-8"))
    assert verdict["admitted"], verdict["reason"]
