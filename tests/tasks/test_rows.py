"""Rows on disk: the round trip, and errors that name source, row, instance and field."""

import dataclasses
import json

import pytest

from turnwise.errors import TaskError
from turnwise.tasks.rows import read_tasks, row, scan_tasks, write_tasks
from turnwise.types import SourceDistribution, Task

from .formats.rows import CLASSIC

TASK = Task(
    instance_id="toolz__toolz-1",
    repo="toolz/toolz",
    base_commit="a" * 40,
    patch="--- a/x\n+++ b/x\n",
    test_patch="--- a/t\n+++ b/t\n",
    problem_statement="`first` is wrong: é\u2028",
    fail_to_pass=("t.py::test_a[1-x y]",),
    pass_to_pass=("t.py::test_b", "u.py::C::test_c"),
    environment=SourceDistribution("toolz", "1.0.0", "b" * 64, ("pytest==8.4.2",), ("", "src")),
    version="1.0.0",
    meta={"split": "train", "kind": "boundary"},
)


def _write(path, *rows):
    path.write_text("\n".join(json.dumps(r) for r in rows) + "\n")
    return path


def test_round_trip(tmp_path):
    write_tasks(tmp_path / "sub" / "tasks.jsonl", [TASK])
    assert read_tasks(tmp_path / "sub" / "tasks.jsonl") == [TASK]


def test_where_a_task_cannot_be_written_the_file_is_as_it_was_and_nothing_lies_beside_it(tmp_path):
    path = tmp_path / "tasks.jsonl"
    write_tasks(path, [TASK])
    unwritable = dataclasses.replace(TASK, problem_statement="a lone surrogate: \ud800")
    with pytest.raises(UnicodeEncodeError):
        write_tasks(path, [TASK, unwritable])
    assert read_tasks(path) == [TASK]
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("depth", [10, 900, 940, 980, 2000])
def test_metadata_nested_too_deeply_costs_its_row_alone(tmp_path, depth):
    deep = row(TASK) | {"instance_id": "deep", "meta": {"a": "HERE"}}
    nested = json.dumps(deep).replace('"HERE"', "[" * depth + '"x"' + "]" * depth)
    (tmp_path / "tasks.jsonl").write_text(f"{nested}\n{json.dumps(row(TASK))}\n")
    scan = scan_tasks(tmp_path / "tasks.jsonl")
    assert (scan.tasks[-1], len(scan.tasks) + len(scan.refused)) == (TASK, 2)
    write_tasks(tmp_path / "again.jsonl", scan.tasks)


def test_test_lists_may_be_json_strings(tmp_path):
    changed = row(TASK) | {"FAIL_TO_PASS": json.dumps(["t.py::test_a"]), "unknown_column": 1}
    assert read_tasks(_write(tmp_path / "t.jsonl", changed))[0].fail_to_pass == ("t.py::test_a",)


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"patch": None}, "patch"),
        ({"FAIL_TO_PASS": []}, "FAIL_TO_PASS"),
        ({"PASS_TO_PASS": "not json"}, "PASS_TO_PASS"),
        ({"base_commit": "HEAD"}, "base_commit"),
        ({"environment": {"package": "toolz", "version": "1.0.0"}}, "environment.sha256"),
    ],
)
def test_an_error_names_file_line_and_field(tmp_path, change, field):
    path = _write(tmp_path / "t.jsonl", row(TASK), row(TASK) | {"instance_id": "second"} | change)
    with pytest.raises(TaskError, match=rf"t\.jsonl:2: \S+: field '{field}'"):
        read_tasks(path)


def test_a_missing_field_is_named(tmp_path):
    lacking = row(TASK)
    del lacking["problem_statement"]
    with pytest.raises(TaskError, match=r"t\.jsonl:1: toolz__toolz-1: field 'problem_statement': Field required"):
        read_tasks(_write(tmp_path / "t.jsonl", lacking))


def test_a_repeated_instance_is_refused(tmp_path):
    with pytest.raises(TaskError, match="2: field 'instance_id': 'toolz__toolz-1' is there twice"):
        read_tasks(_write(tmp_path / "t.jsonl", row(TASK), row(TASK)))


def test_broken_json_and_missing_or_empty_files_are_named(tmp_path):
    (tmp_path / "broken.jsonl").write_text("{not json\n")
    (tmp_path / "empty.jsonl").write_text("\n")
    with pytest.raises(TaskError, match=r"broken\.jsonl:1: "):
        read_tasks(tmp_path / "broken.jsonl")
    with pytest.raises(TaskError, match="holds no tasks"):
        read_tasks(tmp_path / "empty.jsonl")
    with pytest.raises(TaskError, match=r"absent\.jsonl: cannot be read"):
        read_tasks(tmp_path / "absent.jsonl")


def test_what_is_no_task_is_set_aside_and_the_rest_is_read(tmp_path):
    broken = row(TASK) | {"instance_id": "broken", "patch": ""}
    path = _write(tmp_path / "t.jsonl", broken, row(TASK), row(TASK), row(TASK) | {"instance_id": "other"})
    path.write_text(path.read_text() + "{not json\n")
    scan = scan_tasks(path)
    assert [task.instance_id for task in scan.tasks] == ["toolz__toolz-1", "other"]
    assert [str(fault).removeprefix(str(path)).partition(" (")[0] for fault in scan.refused] == [
        ":1: broken: field 'patch': String should have at least 1 character",
        ":3: field 'instance_id': 'toolz__toolz-1' is there twice",
        ":5: is no JSON",
    ]


NAN_ROWS = [
    row(TASK) | {"instance_id": "whole", "hints_text": float("nan"), "created_at": float("nan")},
    row(TASK) | {"instance_id": "lacking", "problem_statement": float("nan")},
    row(TASK) | {"instance_id": float("nan")},
]


def _jsonl(path):
    path.write_text("".join(json.dumps(one) + "\n" for one in NAN_ROWS))


def _json(path):
    path.write_text(json.dumps(NAN_ROWS))


@pytest.mark.parametrize("write", [_jsonl, _json])
def test_nan_is_missing_in_every_kind_of_file(tmp_path, write):
    path = tmp_path / f"rows.{write.__name__[1:]}"
    write(path)
    scan = scan_tasks(path)
    assert scan.tasks == (dataclasses.replace(TASK, instance_id="whole"),)
    lacking, nameless = map(str, scan.refused)
    assert lacking == f"{path}:2: lacking: field 'problem_statement': Field required"
    assert nameless == f"{path}:3: a row without instance_id: field 'instance_id': Field required"


def test_nan_is_missing_in_parquet(tmp_path):
    pyarrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    texts = {name: [content] * 2 for name, content in CLASSIC.items() if isinstance(content, str)}
    columns = texts | {"hints_text": [float("nan")] * 2, "instance_id": ["acme__tiny-1", "acme__tiny-2"]}
    parquet.write_table(pyarrow.table(columns), tmp_path / "rows.parquet")
    assert [task.hints_text for task in read_tasks(tmp_path / "rows.parquet")] == ["", ""]
    parquet.write_table(pyarrow.table(columns | {"patch": [float("nan")] * 2}), tmp_path / "rows.parquet")
    with pytest.raises(TaskError, match=r"rows\.parquet:1: acme__tiny-1: field 'patch': Field required"):
        read_tasks(tmp_path / "rows.parquet")
