"""Rows as they come: JSON lines, JSON, Parquet and datasets, each row with its place."""

import json
import os
import subprocess
import sys

import pytest

from turnwise.errors import InputError, TaskError
from turnwise.tasks.sources import raw_rows

ROWS = [{"instance_id": "a", "tests": ["x"]}, {"instance_id": "b\u2028", "tests": []}]


def _places(path):
    return [(f"{path}:1", ROWS[0]), (f"{path}:2", ROWS[1])]


def test_json_lines(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps(ROWS[0]) + "\n\n" + json.dumps(ROWS[1], ensure_ascii=False), encoding="utf-8")
    assert list(raw_rows(str(path))) == [(f"{path}:1", ROWS[0]), (f"{path}:3", ROWS[1])]


@pytest.mark.parametrize("content", [ROWS, {"a": ROWS[0], "b\u2028": {"tests": []}}, ROWS[0]])
def test_json_is_a_list_a_mapping_from_ids_or_one_row(tmp_path, content):
    path = tmp_path / "rows.json"
    path.write_text(json.dumps(content), encoding="utf-8")
    wanted = _places(path)[: 1 if content is ROWS[0] else 2]
    assert [(place, dict(row)) for place, row in raw_rows(path)] == wanted


def test_parquet(tmp_path):
    pyarrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    path = tmp_path / "rows.parquet"
    parquet.write_table(pyarrow.Table.from_pylist(ROWS), path)
    assert list(raw_rows(path)) == _places(path)
    path.write_text("not parquet")
    with pytest.raises(TaskError, match=r"rows\.parquet: is no Parquet file"):
        list(raw_rows(path))


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.json", "rows.parquet", "absent/rows", "deep/down/rows"])
def test_a_file_that_is_not_there_is_named(tmp_path, name):
    with pytest.raises(TaskError, match=rf"{name}: cannot be read \(No such file or directory\)"):
        list(raw_rows(tmp_path / name))


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.csv"])
def test_a_line_that_is_no_text_is_told_where_it_stands_and_the_rest_is_read(tmp_path, name):
    (tmp_path / name).write_bytes(b'\xef\xbb\xbf{"a": 1}\n{"a": "\xff"}\n{"a": 2}\r\n')
    first, second, third = raw_rows(tmp_path / name)
    assert (first[1], third[1]) == ({"a": 1}, {"a": 2})
    assert str(second[1]).startswith(f"{tmp_path / name}:2: is no UTF-8 text ('utf-8' codec can't decode byte 0xff")


def test_a_json_file_may_have_a_mark_before_it_and_must_be_text(tmp_path):
    path = tmp_path / "rows.json"
    path.write_bytes(b'\xef\xbb\xbf[{"a": 1}]')
    assert list(raw_rows(path)) == [(f"{path}:1", {"a": 1})]
    path.write_bytes(b'[{"a": "\xff"}]')
    ((place, fault),) = raw_rows(path)
    assert (place, str(fault)[: len(place) + 20]) == (str(path), f"{path}: is no UTF-8 text (")


def test_a_parquet_file_with_a_bad_page_is_told_with_the_reason(tmp_path):
    pyarrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    path = tmp_path / "rows.parquet"
    parquet.write_table(pyarrow.Table.from_pylist(ROWS), path)
    content = bytearray(path.read_bytes())
    content[4:40] = bytes(36)
    path.write_bytes(content)
    with pytest.raises(TaskError, match=r"rows\.parquet: .*\(.{9,}") as caught:
        list(raw_rows(path))
    assert "None" not in str(caught.value)


def test_a_number_too_long_to_be_read_costs_its_line(tmp_path):
    (tmp_path / "rows.jsonl").write_text(f'{{"a": {"1" * 5000}}}\n{{"a": 1}}\n')
    (_, fault), (_, row) = raw_rows(tmp_path / "rows.jsonl")
    assert "rows.jsonl:1: is no JSON (Exceeds the limit" in str(fault)
    assert row == {"a": 1}


def test_what_is_no_row_is_told_where_it_stands(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text('{"a": 1}\n{broken\n[1]\n')
    rows = list(raw_rows(path))
    assert rows[0][1] == {"a": 1}
    assert [str(fault).partition(" (")[0] for _, fault in rows[1:]] == [
        f"{path}:2: is no JSON",
        f"{path}:3: is no row",
    ]


@pytest.mark.parametrize(
    ("module", "source", "message"),
    [
        ("datasets", "org/name:test", r"org/name: .* pip install 'turnwise\[datasets\]'"),
        ("pyarrow", "rows.parquet", r"rows\.parquet: to read Parquet, pip install 'turnwise\[parquet\]'"),
    ],
)
def test_a_missing_library_is_named_with_what_to_install(monkeypatch, module, source, message):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(InputError, match=message):
        list(raw_rows(source))


READ = """
import sys
from turnwise.errors import InputError
from turnwise.tasks.sources import raw_rows
for source in sys.argv[1:]:
    try:
        print([(place, row["instance_id"]) for place, row in raw_rows(source)])
    except InputError as error:
        print(error)
"""


def test_datasets_come_row_by_row_under_their_split(tmp_path):
    (tmp_path / "two").mkdir()
    for split in ("train", "test"):
        (tmp_path / "two" / f"{split}.jsonl").write_text(json.dumps({"instance_id": split}))
    environment = os.environ | {"HF_HOME": str(tmp_path / "cache"), "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-c", READ, "two:train", "two", "org/none"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
    train, two, none = done.stdout.splitlines()
    assert train == "[('two:train:1', 'train')]"
    assert two == "two: has the splits train, test; name one, as two:train"
    assert none.startswith("org/none: no such file is here, and no such dataset can be reached (")
