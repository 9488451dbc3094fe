"""The file of mined tasks: added to, split by date, and never somebody else's."""

import json
from dataclasses import replace

import pytest

from turnwise.errors import InputError
from turnwise.tasks import read_tasks, write_tasks
from turnwise.tasks.mine import MinedFile
from turnwise.tasks.mine.mined import split_by_date
from turnwise.types import Checkout, Task

TASK = Task("a__b-1", "a/b", "0" * 40, "p", "t", "Sums are wrong", ("t.py::a",), (), Checkout(), meta={"commit": "1"})


def task(day):
    return replace(TASK, instance_id=f"a__b-{day}", created_at=f"2023-05-0{day}T00:00:00Z")


@pytest.mark.parametrize(
    ("count", "share", "held_out"),
    [(8, 0.25, 2), (2, 0.25, 1), (1, 0.25, 0), (3, 0.0, 0), (3, 1.0, 3), (4, 0.9, 3)],
)
def test_the_newest_are_held_out(count, share, held_out):
    split = split_by_date([task(day) for day in range(count, 0, -1)], share)
    assert [one.instance_id for one in split] == [f"a__b-{day}" for day in range(1, count + 1)]
    assert [one.meta["split"] for one in split] == ["train"] * (count - held_out) + ["heldout"] * held_out


def test_the_split_is_decided_anew_with_each_task(tmp_path):
    path = tmp_path / "tasks.jsonl"
    MinedFile(path, 0.5).add(task(1))
    assert [one.meta["split"] for one in read_tasks(path)] == ["train"]
    file = MinedFile(path, 0.5)
    file.add(task(2))
    file.add(replace(task(2), problem_statement="Differences are wrong"))
    assert {name: one.problem_statement for name, one in MinedFile(path, 0.5).tasks.items()} == {
        "a__b-1": "Sums are wrong",
        "a__b-2": "Differences are wrong",
    }
    assert [one.meta for one in read_tasks(path)] == [
        {"commit": "1", "split": "train"},
        {"commit": "1", "split": "heldout"},
    ]


def test_a_file_of_something_else_is_left_alone(tmp_path):
    path = tmp_path / "tasks.jsonl"
    path.write_text(json.dumps({"note": "mine"}) + "\n")
    with pytest.raises(InputError, match=r"exists and is no file of tasks .*name another file with --out"):
        MinedFile(path, 0.25)
    write_tasks(path, [replace(TASK, meta={})])
    with pytest.raises(InputError, match="tasks that were not mined, such as a__b-1"):
        MinedFile(path, 0.25)
