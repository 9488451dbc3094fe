"""The file of mined tasks: always whole, oldest first, the newest of them held out."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from turnwise.errors import InputError, TaskError
from turnwise.tasks.rows import read_tasks, write_tasks
from turnwise.tasks.split import HELD_OUT, TRAIN
from turnwise.types import Task


class MinedFile:
    """A file that tasks are mined into, with what it holds already; tasks of other repositories stay in it.

    Opening raises InputError for a file whose rows were not mined.
    """

    def __init__(self, path: Path, held_out: float) -> None:
        self._path, self._held_out = path, held_out
        self._tasks = _held(path)

    @property
    def tasks(self) -> Mapping[str, Task]:
        """The tasks by instance id."""
        return self._tasks

    def add(self, task: Task) -> None:
        """Write the file anew with one more task in it, or another version of one."""
        self._tasks[task.instance_id] = task
        write_tasks(self._path, split_by_date(list(self._tasks.values()), self._held_out))


def split_by_date(tasks: list[Task], held_out: float) -> list[Task]:
    """The tasks, oldest first, with `meta["split"]` set: the share `held_out` of them that is newest to "heldout".

    What is held out came after all that is trained on. With two tasks or more neither side stays empty for a share
    between 0 and 1.
    """
    ordered = sorted(tasks, key=lambda task: (task.created_at, task.instance_id))
    count = round(len(ordered) * held_out)
    if 0 < held_out < 1 and len(ordered) > 1:
        count = min(max(count, 1), len(ordered) - 1)
    first = len(ordered) - count
    sides = [TRAIN if number < first else HELD_OUT for number in range(len(ordered))]
    return [replace(task, meta={**task.meta, "split": side}) for task, side in zip(ordered, sides, strict=True)]


def _held(path: Path) -> dict[str, Task]:
    if not path.exists():
        return {}
    advice = "name another file with --out, or remove it"
    try:
        tasks = read_tasks(path)
    except TaskError as error:
        raise InputError(f"{path}: exists and is no file of tasks ({error}); {advice}") from error
    strange = [task.instance_id for task in tasks if "commit" not in task.meta]
    if strange:
        raise InputError(f"{path}: exists and holds tasks that were not mined, such as {strange[0]}; {advice}")
    return {task.instance_id: task for task in tasks}
