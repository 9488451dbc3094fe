"""Predictions in every form that people write them in."""

import json

import pytest

from turnwise.errors import InputError
from turnwise.evaluation import match, read_predictions

ROWS = [
    {"instance_id": "a__a-1", "model_patch": "diff\u2028", "model_name_or_path": "m"},
    {"instance_id": "b__b-1", "model_patch": None, "extra": 1},
    {"instance_id": "c__c-1"},
]
FORMS = {
    "list.json": json.dumps(ROWS),
    "object.json": json.dumps({row["instance_id"]: row for row in ROWS}),
    "keys.json": json.dumps({row["instance_id"]: {k: v for k, v in row.items() if k != "instance_id"} for row in ROWS}),
    "lines.jsonl": "\n\n".join(json.dumps(row, ensure_ascii=False) for row in ROWS) + "\n",
}


@pytest.mark.parametrize("name", FORMS)
def test_every_form_reads_the_same(tmp_path, name):
    (tmp_path / name).write_text(FORMS[name])
    read = read_predictions(tmp_path / name)
    assert [(each.instance_id, each.patch, each.model_name_or_path) for each in read] == [
        ("a__a-1", "diff\u2028", "m"),
        ("b__b-1", "", None),
        ("c__c-1", "", None),
    ]


REFUSED = [
    ("x.json", "{", "not valid JSON"),
    ("x.json", "3", "neither a list"),
    ("x.json", "[]", "holds no predictions"),
    ("x.json", '[{"model_patch": "d"}]', "entry 0: field 'instance_id'"),
    ("x.json", '{"a__a-1": "diff"}', "entry 'a__a-1'"),
    ("x.json", '{"a__a-1": {}, "a__a-1": {"model_patch": "d"}}', "'a__a-1' is there twice"),
    ("x.json", '{"a__a-1": {"instance_id": "b__b-1"}}', "entry 'a__a-1': is for another instance_id, 'b__b-1'"),
    ("x.json", "[" * 100_000, "nested too deeply"),
    ("x.jsonl", "[" * 100_000, "line 1: not valid JSON: nested too deeply"),
    ("x.json", f'[{{"x": {"9" * 5000}}}]', "5000 digits"),
    ("x.jsonl", '{"instance_id": "a"}\n{', "line 2: not valid JSON"),
    ("x.jsonl", '{"instance_id": "a", "model_patch": 5}', "line 1: field 'model_patch'"),
    (
        "x.jsonl",
        r'{"instance_id": "a", "model_patch": "\ud800"}',
        "line 1: field 'model_patch': Value error",
    ),
    ("x.jsonl", '{"instance_id": "a"}\n{"instance_id": "a"}', "line 2: 'a' is there twice"),
]


@pytest.mark.parametrize(("name", "text", "words"), REFUSED)
def test_what_cannot_be_read_is_named_by_place(tmp_path, name, text, words):
    (tmp_path / name).write_text(text)
    with pytest.raises(InputError) as refused:
        read_predictions(tmp_path / name)
    assert str(tmp_path / name) in str(refused.value)
    assert words in str(refused.value)


def test_a_mark_of_the_byte_order_is_passed_over(tmp_path):
    for name, text in FORMS.items():
        (tmp_path / name).write_text("\ufeff" + text)
        assert len(read_predictions(tmp_path / name)) == 3


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(InputError, match=r"absent\.json: cannot be read"):
        read_predictions(tmp_path / "absent.json")


def test_matching_tells_what_is_left_over(tmp_path, small_world):
    (tmp_path / "p.json").write_text(json.dumps([{"instance_id": "small__calc-1"}, {"instance_id": "z__z-9"}]))
    matched = match(read_predictions(tmp_path / "p.json"), [small_world.task])
    assert [(task.instance_id, prediction.patch) for task, prediction in matched.pairs] == [("small__calc-1", "")]
    assert matched.unknown == ("z__z-9",)
    assert matched.without == ()
    assert matched.patchless == ("small__calc-1", "z__z-9")


@pytest.mark.parametrize("name", ["preds.json", "preds.jsonl"])
def test_a_patch_that_is_nan_is_missing(tmp_path, name):
    row = '{"instance_id": "a", "model_patch": NaN, "model_name_or_path": NaN}'
    (tmp_path / name).write_text(row if name.endswith("l") else f"[{row}]")
    (prediction,) = read_predictions(tmp_path / name)
    assert (prediction.patch, prediction.model_name_or_path) == ("", None)
