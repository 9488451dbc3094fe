"""What no format's model looks at: that a task can be written down, and that it can be built at all."""

import re
from collections.abc import Iterator, Mapping
from datetime import date
from pathlib import PurePosixPath
from typing import Any

from turnwise.errors import TaskError
from turnwise.tasks.formats.own import row
from turnwise.types import Checkout, Installation, Task

_HALF_CHARACTER = re.compile("[\ud800-\udfff]")
_DAY = re.compile(r"\d{4}-\d\d-\d\d")


def require_sound(task: Task) -> None:
    """Raise TaskError that names the field, as our own rows call it, of what no environment or file can be made of."""
    for field, text in _texts("", row(task)):
        if _HALF_CHARACTER.search(text):
            raise TaskError(f"field {field!r}: holds half a character, a surrogate without the other one")
        if "\0" in text and not field.startswith("meta"):
            raise TaskError(f"field {field!r}: holds a NUL character")
    _require_day(task.created_at)
    if isinstance(task.environment, Checkout):
        _require_plain(task.environment.installation)


def _texts(field: str, content: Any) -> Iterator[tuple[str, str]]:
    """Each text of a row, however deep, with the name of its field; names of variables and the like are texts too."""
    if isinstance(content, str):
        yield field, content
    elif isinstance(content, Mapping):
        for name, part in content.items():
            yield field, name
            yield from _texts(f"{field}.{name}".lstrip("."), part)
    elif isinstance(content, list | tuple):
        for part in content:
            yield from _texts(field, part)


def _require_day(created_at: str) -> None:
    found = _DAY.match(created_at)
    try:
        date.fromisoformat(found[0] if found else "2000-01-01")
    except ValueError as error:
        raise TaskError(f"field 'created_at': {created_at!r} is no day ({error})") from error


def _require_plain(installation: Installation) -> None:
    """Files lie in the repository, and variables have names that a process can be given."""
    for field in ("requirement_files", "environment_files"):
        for path in map(PurePosixPath, getattr(installation, field)):
            if path.is_absolute() or ".." in path.parts:
                raise TaskError(f"field 'environment.installation.{field}': {str(path)!r} is not in the repository")
    for name in installation.env:
        if not name or "=" in name:
            raise TaskError(f"field 'environment.installation.env': {name!r} can't be the name of a variable")
