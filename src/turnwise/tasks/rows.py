"""Tasks from rows and back: every known format is read (formats/), our own is written."""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from turnwise.errors import TaskError
from turnwise.files import write_whole
from turnwise.tasks.formats import row, task_of
from turnwise.tasks.formats.fields import nan_as_none
from turnwise.tasks.sources import Placed, raw_rows
from turnwise.types import Task

__all__ = ["Scan", "read_tasks", "row", "scan_tasks", "write_tasks"]


@dataclass(frozen=True)
class Scan:
    """The tasks of a source, and why its other rows are none."""

    tasks: tuple[Task, ...]
    refused: tuple[TaskError, ...]


def read_tasks(source: str | Path) -> list[Task]:
    """The tasks of a source (sources.py: a file, or a dataset `org/name[:split]`), in its order.

    Raises TaskError naming source, row, instance and field for a row that lacks something, is malformed or repeats an
    id; InputError where a library is missing or a dataset cannot be reached.
    """
    tasks = []
    for task in _sifted(source):
        if isinstance(task, TaskError):
            raise task
        tasks.append(task)
    if not tasks:
        raise TaskError(f"{source}: holds no tasks; make some with `turnwise tasks make PACKAGE==VERSION`")
    return tasks


def scan_tasks(source: str | Path) -> Scan:
    """Like `read_tasks`, but rows that are no tasks are set aside with their errors; raises only for the source."""
    sifted = list(_sifted(source))
    refused = tuple(one for one in sifted if isinstance(one, TaskError))
    return Scan(tuple(one for one in sifted if isinstance(one, Task)), refused)


def _sifted(source: str | Path) -> Iterator[Task | TaskError]:
    known: set[str] = set()
    for placed in raw_rows(source):
        task = _task(placed)
        if isinstance(task, Task) and task.instance_id in known:
            yield TaskError(f"{placed[0]}: field 'instance_id': {task.instance_id!r} is there twice")
            continue
        if isinstance(task, Task):
            known.add(task.instance_id)
        yield task


def _task(placed: Placed) -> Task | TaskError:
    place, content = placed
    if isinstance(content, TaskError):
        return content
    try:
        return task_of(content)
    except TaskError as error:
        names = (nan_as_none(content.get(field)) for field in ("instance_id", "commit_hash"))
        name = next(filter(None, names), "a row without instance_id")
        told = TaskError(f"{place}: {name}: {error}")
        told.__cause__ = error
        return told


def write_tasks(path: Path, tasks: Iterable[Task]) -> None:
    """Write tasks as JSON lines; the file appears whole or not at all. Raises StoreError where it cannot."""
    with write_whole(Path(path)) as file:
        for task in tasks:
            file.write(json.dumps(row(task), ensure_ascii=False).encode() + b"\n")
