"""The split: by function, file or package, stable, and never the same right or wrong line on both sides."""

from dataclasses import replace

import pytest

from turnwise.tasks.split import assign_splits
from turnwise.types import SourceDistribution, Task


def _task(name, original, mutated, file="m.py", function=None, package="pkg"):
    environment = SourceDistribution(package, "1.0", "0" * 64)
    outermost = name.partition("-")[0] if function is None else function
    meta = {"file": file, "outermost_function": outermost, "original": original, "mutated": mutated}
    return Task(name, "pkg/pkg", "", "", "", "", ("t",), ("u",), environment, meta=meta)


def _sides(tasks, held_out=0.25, **options):
    return {task.instance_id: task.meta["split"] for task in assign_splits(tasks, held_out, **options)}


MANY = [_task(f"{n}-{m}", f"    right {n}\n", f"    wrong {n} {m}\n") for n in range(200) for m in range(2)]


def test_about_the_share_is_held_out_and_the_same_line_never_parts():
    sides = _sides(MANY)
    assert 0.15 < sum(side == "heldout" for side in sides.values()) / len(sides) < 0.35
    assert all(sides[f"{n}-0"] == sides[f"{n}-1"] for n in range(200))


def test_lines_that_become_the_same_wrong_line_stay_together():
    joined = [*MANY, _task("a", "    right 0\n", "    both\n"), _task("b", "right 1\n", "  both\n")]
    sides = _sides(joined)
    assert len({sides[name] for name in ("0-0", "1-0", "a", "b")}) == 1


def test_more_tasks_move_none_of_those_before():
    before = _sides(MANY[:300])
    after = _sides(MANY)
    assert {name: after[name] for name in before} == before


def test_neither_side_is_empty():
    two = [_task("a", "x = 1\n", "x = 2\n"), _task("b", "y = 1\n", "y = 2\n")]
    for file in "abcdefgh":
        sides = _sides([replace(t, meta={**t.meta, "file": file}) for t in two])
        assert sorted(sides.values()) == ["heldout", "train"]


@pytest.mark.parametrize("count", [1, 2, 60])
def test_no_share_and_the_whole_are_taken_at_their_word(count):
    assert set(_sides(MANY[: 2 * count], held_out=0).values()) == {"train"}
    assert set(_sides(MANY[: 2 * count], held_out=1).values()) == {"heldout"}


def test_the_only_family_goes_by_its_name():
    alone = [_sides([_task("a", "x\n", "y\n", file=f"{n}.py")])["a"] for n in range(60)]
    assert set(alone) == {"heldout", "train"}


def test_removed_lines_are_no_bond():
    gone = [_task(str(n), f"guard {n}\n", "") for n in range(60)]
    assert set(_sides(gone).values()) == {"heldout", "train"}


GRID = [
    _task(f"{package}{file}{function}{bug}", f"{function}{bug}", "", f"{file}.py", function, package)
    for package in "pqrst"
    for file in "abcde"
    for function in "fghij"
    for bug in "123"
]


@pytest.mark.parametrize(("by", "width"), [("function", 3), ("file", 2), ("package", 1)])
@pytest.mark.parametrize("seed", range(4))
def test_what_is_held_out_is_held_out_as_a_whole(by, width, seed):
    sides = _sides(GRID, by=by, seed=seed)
    wholes = {name[:width] for name in sides}
    held_out = {name[:width] for name, side in sides.items() if side == "heldout"}
    trained = {name[:width] for name, side in sides.items() if side == "train"}
    assert held_out
    assert trained
    assert held_out | trained == wholes
    assert not held_out & trained


def test_function_is_the_default_and_parts_files():
    sides = _sides(GRID)
    assert sides == _sides(GRID, by="function")
    assert {name[:2] for name, side in sides.items() if side == "heldout"} & {
        name[:2] for name, side in sides.items() if side == "train"
    }


def test_the_seed_alone_changes_what_is_held_out():
    assert _sides(GRID, seed=1) == _sides(list(reversed(GRID)), seed=1)
    assert _sides(GRID, seed=1) != _sides(GRID, seed=2)


def test_a_split_that_tasks_had_before_is_forgotten():
    once = assign_splits(GRID, 0.25, seed=1)
    assert assign_splits(once, 0.25, seed=2) == assign_splits(GRID, 0.25, seed=2)
