"""The frozen set: what every reader and every run relies on."""

import re
from collections import Counter

from turnwise.tasks import assign_splits, frozen_path, read_tasks
from turnwise.tasks.mutate import KINDS

TASKS = read_tasks(frozen_path())


def _sides(task):
    """(lines with the bug, lines without it) as the gold patch has them."""
    lines = [line for line in task.patch.splitlines() if not line.startswith(("---", "+++"))]
    removed, added = ([line[1:] for line in lines if line.startswith(sign)] for sign in "-+")
    return removed, added


def test_there_are_enough_tasks_of_enough_packages_and_kinds():
    assert len(TASKS) >= 400
    packages = Counter(task.sdist.package for task in TASKS)
    assert len(packages) >= 6
    assert min(packages.values()) >= 10
    kinds = {task.meta["kind"] for task in TASKS}
    assert kinds <= set(KINDS)
    assert len(kinds) >= 10


def test_about_a_quarter_is_held_out():
    splits = Counter(task.meta["split"] for task in TASKS)
    assert set(splits) == {"train", "heldout"}
    assert 0.18 < splits["heldout"] / len(TASKS) < 0.32


def test_no_function_is_on_both_sides():
    functions = {"train": set(), "heldout": set()}
    for task in TASKS:
        place = task.sdist.package, task.meta["file"], task.meta["outermost_function"]
        functions[task.meta["split"]].add(place)
        assert f"{task.meta['function']}.".startswith(f"{task.meta['outermost_function']}.")
    assert len(functions["heldout"]) >= 20
    assert not functions["train"] & functions["heldout"]


def test_every_package_is_on_both_sides():
    packages = {side: {t.sdist.package for t in TASKS if t.meta["split"] == side} for side in ("train", "heldout")}
    assert packages["train"] == packages["heldout"]


def test_the_split_is_what_tasks_make_gives_with_its_seed():
    assert assign_splits(TASKS, held_out=0.25, by="function", seed=173) == TASKS


def test_no_bug_is_on_both_sides():
    for side in (0, 1):
        texts = {"train": set(), "heldout": set()}
        for task in TASKS:
            lines = " ".join(" ".join(_sides(task)[side]).split())
            if lines:
                texts[task.meta["split"]].add((task.sdist.package, task.meta["file"], lines))
        assert not texts["train"] & texts["heldout"]


def test_one_archive_stands_for_a_package():
    archives = {(t.sdist.package, t.sdist.version, t.sdist.sha256) for t in TASKS}
    assert len(archives) == len({package for package, _, _ in archives})
    assert all(re.fullmatch("[0-9a-f]{64}", sha256) for _, _, sha256 in archives)
    environments = {(t.sdist.package, t.sdist.requirements) for t in TASKS}
    assert len(environments) == len(archives), "one environment for a package, or quickstart installs several"


def test_every_row_is_sound():
    unsound = {task.instance_id: faults for task in TASKS if (faults := [*_faults(task)])}
    assert unsound == {}


def _faults(task):
    buggy, right = _sides(task)
    hidden = rf"^\+\s*(async )?def {_function(task.fail_to_pass[0])}\b"
    files = [{test_id.partition("::")[0] for test_id in ids} for ids in (task.pass_to_pass, task.fail_to_pass)]
    told = [line for line in right if len(line.strip()) > 8 and line.strip() in task.problem_statement]
    holds = {
        "the fix is the original": set(right) <= set(task.meta["original"].splitlines()),
        "the bug is the mutation": set(buggy) <= set(task.meta["mutated"].splitlines()),
        "the patch is one change": task.patch.count("\n@@ ") == 1,
        "no test is of both kinds": set(task.fail_to_pass).isdisjoint(task.pass_to_pass),
        "the tests lie in one place": files[0] <= files[1],
        "the test patch brings the test": re.search(hidden, task.test_patch, re.MULTILINE) is not None,
        "the issue is short": len(task.problem_statement) <= 501,
        "the issue does not show the fix": not told,
        "the issue shows no place": not re.search(r"\bline \d+, in\b|0x[0-9a-f]{6}", task.problem_statement),
    }
    yield from (name for name, held in holds.items() if not held)


def _function(test_id):
    return test_id.partition("[")[0].rpartition("::")[2]


def test_rows_are_lines_of_json_without_paths_of_this_machine():
    text = frozen_path().read_text(encoding="utf-8")
    assert not re.search(r"/(home|root|tmp/twcache|work)/", text.replace("/home/user", ""))
