"""`turnwise tasks mine` as a user runs it: a task out of a repository, with its real environment, and its errors."""

import pytest

from turnwise.cli import main
from turnwise.tasks import read_tasks
from turnwise.tasks.verdicts import read_verdicts, require_gate

from ..tasks.mine.past import make_past

pytestmark = pytest.mark.slow

SETUP = "from setuptools import setup\n\nsetup(name='calc', version='1.0', py_modules=['calc'])\n"


@pytest.fixture
def past(tmp_path):
    return make_past(tmp_path / "calc", {"setup.py": SETUP})


@pytest.fixture
def mine(tmp_path, monkeypatch, capsys):
    """Run the verb in a folder that holds the repository `calc`."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setenv("TURNWISE_CACHE", str(tmp_path / "cache"))

    def run(*arguments):
        with pytest.raises(SystemExit) as leaving:
            main(["tasks", "mine", *arguments])
        return (leaving.value.code, *capsys.readouterr())

    return run


def test_a_repository_gives_tasks_and_a_table(mine, past, tmp_path):
    given = ("calc", "--out", "tasks.jsonl", "--repo", "acme/calc", "--ref", past.commits["half"], "--tries", "1")
    code, out, err = mine(*given, "--repeats", "1")
    assert (code, out.splitlines()[0]) == (0, "acme__calc-9: admitted: 1 to fix, 2 to keep"), err
    cells = [[cell.strip() for cell in line.split("│")[1:-1]] for line in out.splitlines() if "│" in line]
    assert cells == [
        ["commits looked at", "", "1"],
        ["touch source and tests", "0", "1"],
        ["said to be fixes", "0", "1"],
        ["read whole, within size", "0", "1"],
        ["tried", "0", "1"],
        ["environment built", "0", "1"],
        ["failing tests turned passing", "0", "1"],
        ["admitted", "0", "1"],
    ]
    assert out.endswith("1 task → tasks.jsonl, verdicts → tasks.gate.jsonl\n")
    require_gate(read_tasks(tmp_path / "tasks.jsonl"), "tasks.gate.jsonl")
    assert list(read_verdicts(tmp_path / "tasks.gate.jsonl")) == ["acme__calc-9"]
    assert mine(*given)[1].endswith("1 task → tasks.jsonl, verdicts → tasks.gate.jsonl\n")


def test_its_own_way_of_installing_it_is_taken_and_stays_with_the_rows(mine, past, tmp_path):
    given = ("calc", "--out", "tasks.jsonl", "--repo", "acme/calc", "--ref", past.commits["half"], "--tries", "1")
    install = ("--install", "echo ours >&2; false", "--python", "3.11")
    assert "`echo ours >&2; false` failed: ours" in mine(*given, *install)[1]
    (tmp_path / "tasks.gate.jsonl").unlink()
    code, out, err = mine(*given, "--repeats", "1", "--install", "touch here", "--install", "pip install .")
    assert (code, out.splitlines()[0]) == (0, "acme__calc-9: admitted: 1 to fix, 2 to keep"), err
    (task,) = read_tasks(tmp_path / "tasks.jsonl")
    assert task.environment.installation.install == ("touch here", "pip install -e .")


def test_nothing_found_is_told(mine, past):
    code, out, _ = mine("calc", "--out", "tasks.jsonl", "--since", "2030-01-01")
    assert (code, out.splitlines()[-1]) == (0, "no task was admitted")


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("nowhere",), "nowhere: no such folder; give a clone, a bare repository or a mirror"),
        (("calc", "--ref", "v9"), "calc: has no commit that 'v9' names; give --ref BRANCH, such as main, sign"),
        (("calc", "--repo", "calc"), "--repo calc: should be OWNER/NAME"),
        (
            ("calc", "--gate", "./tasks.jsonl"),
            "tasks.jsonl: is to hold the tasks and the verdicts; name another file with --gate",
        ),
        (("calc", "--gate", "calc"), "calc: is no regular file, and not replaced by one; name another"),
        (("calc", "--out", "calc/calc.py"), "calc/calc.py: should be a .jsonl file"),
    ],
)
def test_what_is_wrong_is_one_line(mine, past, arguments, told):
    code, _, err = mine("--out", "tasks.jsonl", *arguments)
    assert (code, err) == (1, f"turnwise: {told}\n")
