"""`turnwise tasks` on rows of others: list, show, convert and filter, by what they print and write."""

import json
from dataclasses import dataclass

import pytest

from turnwise.cli import main
from turnwise.tasks import read_tasks

from ..tasks.formats.rows import CLASSIC, REBENCH, patch

pytestmark = pytest.mark.slow


@dataclass(frozen=True)
class Done:
    """How a command ended."""

    returncode: int
    stdout: str
    stderr: str


@pytest.fixture
def tasks(tmp_path, monkeypatch, capsys):
    """Run a verb of `turnwise tasks` in a folder that holds rows.jsonl."""
    hard = REBENCH | {"instance_id": "hard__lib-1"}
    hard = hard | {"meta": {"llm_score": {"test_score": 3}}}
    long = CLASSIC | {"instance_id": "django__django-2", "patch": "".join(patch(f"f{n}.py") for n in range(8))}
    broken = CLASSIC | {"instance_id": "django__django-3", "patch": ""}
    rows = [CLASSIC, REBENCH, hard, long, broken]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "100")

    def run(*arguments: str) -> Done:
        with pytest.raises(SystemExit) as leaving:
            main(["tasks", *arguments])
        return Done(leaving.value.code, *capsys.readouterr())

    return run


FAULT = "turnwise: rows.jsonl:5: django__django-3: field 'patch': String should have at least 1 character\n"


def test_list_tells_where_tasks_are_from_and_which_rows_are_none(tasks):
    done = tasks("list", "rows.jsonl")
    assert done.returncode == 1
    assert done.stderr == FAULT + "turnwise: 1 row is no task (above)\n"
    first, *_, last = done.stdout.splitlines()
    assert first.split("  ")[0] == "django__django-12345"
    assert "django/django 3.1" in first
    assert first.endswith("SWE-bench (1 to fix, 0 to keep)")
    assert last == "4 tasks, 2 SWE-bench, 2 SWE-rebench v1"


def test_select_chooses_by_pattern_or_name(tasks):
    assert tasks("list", "rows.jsonl", "--select", "^some").stdout.splitlines()[-1] == "1 tasks, 1 SWE-rebench v1"
    refused = tasks("list", "rows.jsonl", "--select", "verified-50").stderr
    assert "50 of the 50 tasks of verified-50 are not here" in refused


def test_a_split_that_no_task_is_of_is_told_with_those_that_are_there(tasks, tmp_path):
    told = "turnwise: rows.jsonl: none of 4 tasks has meta.split 'typo'; they have no splits\n"
    assert tasks("list", "rows.jsonl", "--split", "typo").stderr == FAULT + told
    told = "turnwise: frozen: none of 1 tasks has meta.split 'typo'; there are heldout\n"
    verdicts = ("--out", "verdicts.jsonl")
    for verb in (("list",), ("validate", *verdicts)):
        done = tasks(*verb, "frozen", "--select", "boltons-2b6043fe", "--split", "typo")
        assert (done.returncode, done.stderr) == (1, told)
    assert not (tmp_path / "verdicts.jsonl").exists()


def test_show_tells_how_a_task_is_made_and_tested(tasks):
    shown = tasks("show", "some__lib-6", "rows.jsonl").stdout
    assert "image      swerebench/sweb.eval.x86_64.some_1776_lib-6" in shown
    assert "tests      pytest -rA --color=no tests/test_core.py" in shown
    assert "Core is wrong." in shown
    assert "lib/core.py" not in shown


def test_convert_writes_our_own_rows(tasks, tmp_path):
    done = tasks("convert", "rows.jsonl", "--out", "ours.jsonl", "--select", "some__lib")
    assert done.stdout == "1 tasks, 1 SWE-rebench v1 → ours.jsonl\n"
    assert read_tasks(tmp_path / "ours.jsonl") == [read_tasks(_only(tmp_path, REBENCH))[0]]
    again = tasks("convert", "rows.jsonl", "--out", "ours.jsonl")
    assert again.stderr == "turnwise: ours.jsonl: exists already; name another file with --out, or remove it\n"


def test_filter_writes_what_passes_and_shows_the_funnel(tasks, tmp_path):
    done = tasks("filter", "rows.jsonl", "--out", "kept.jsonl")
    cells = [[cell.strip() for cell in line.split("│")[1:-1]] for line in done.stdout.splitlines() if "│" in line]
    assert cells == [
        ["read", "", "4"],
        ["patch is a diff", "0", "4"],
        ["failing tests fail on no import or attribute", "0", "4"],
        ["at most 7 files changed", "1", "3"],
        ["fewer than 500 lines changed", "0", "3"],
        ["every LLM score below 3", "1", "2"],
    ]
    assert done.stdout.endswith("2 tasks, 1 SWE-bench, 1 SWE-rebench v1 → kept.jsonl\n")
    assert done.stderr.startswith(FAULT)
    assert [task.instance_id for task in read_tasks(tmp_path / "kept.jsonl")] == ["django__django-12345", "some__lib-6"]


def test_filter_takes_the_gates_verdicts(tasks, tmp_path):
    (tmp_path / "verdicts.jsonl").write_text('{"instance_id": "some__lib-6", "admitted": true, "flaky": ["t"]}\n')
    chosen = ("--select", "^some", "--verdicts", "verdicts.jsonl")
    done = tasks("filter", "rows.jsonl", "--out", "kept.jsonl", *chosen)
    assert [line.split("│")[2].strip() for line in done.stdout.splitlines() if "flaky" in line] == ["1"]
    assert done.stdout.endswith("no tasks, kept.jsonl is not written\n")
    assert not (tmp_path / "kept.jsonl").exists()


def test_validate_keeps_its_hands_off_what_is_no_verdicts_file(tasks, tmp_path):
    before = (tmp_path / "rows.jsonl").read_bytes()
    (tmp_path / "same.jsonl").symlink_to("rows.jsonl")
    assert "same.jsonl: is the source of the tasks" in tasks("validate", "rows.jsonl", "--out", "same.jsonl").stderr
    assert (tmp_path / "rows.jsonl").read_bytes() == before
    (tmp_path / "pipe").mkdir()
    assert "pipe: is no regular file" in tasks("validate", "rows.jsonl", "--out", "pipe").stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["pipe", "rows.jsonl", "same.jsonl"]


def _only(folder, row):
    path = folder / "only.jsonl"
    path.write_text(json.dumps(row))
    return path
