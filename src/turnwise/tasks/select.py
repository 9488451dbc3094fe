"""Which of a source's tasks are meant: a named selection, or a pattern of instance ids."""

import re
from collections.abc import Sequence
from pathlib import Path

from turnwise.errors import InputError, TaskError
from turnwise.types import Task


def selections() -> dict[str, frozenset[str]]:
    """The named selections that ship, each a fixed set of instance ids: data/selections/NAME.txt, one id a line.

    >>> len(selections()["verified-50"])
    50
    """
    folder = Path(__file__).parent / "data" / "selections"
    return {path.stem: frozenset(path.read_text(encoding="utf-8").split()) for path in sorted(folder.glob("*.txt"))}


def select(tasks: Sequence[Task], wanted: str) -> list[Task]:
    """The tasks of a named selection, or those in whose instance ids a regular expression is found, in their order.

    A named selection is whole or not at all, for a score over part of it must not bear its name. Raises TaskError for a
    selection that the tasks lack part of and for a pattern that none matches, InputError for a broken pattern.
    """
    named = selections().get(wanted.lower())
    if named is not None:
        return _all_of(named, tasks, wanted)
    try:
        pattern = re.compile(wanted)
    except re.error as error:
        names = ", ".join(selections())
        raise InputError(f"{wanted!r} is neither a selection ({names}) nor a pattern ({error})") from error
    chosen = [task for task in tasks if pattern.search(task.instance_id)]
    if not chosen:
        raise TaskError(f"no instance id matches {wanted!r}")
    return chosen


def _all_of(named: frozenset[str], tasks: Sequence[Task], wanted: str) -> list[Task]:
    missing = sorted(named - {task.instance_id for task in tasks})
    if missing:
        some = ", ".join(missing[:3]) + (", …" if len(missing) > 3 else "")
        raise TaskError(f"{len(missing)} of the {len(named)} tasks of {wanted} are not here: {some}")
    return [task for task in tasks if task.instance_id in named]
