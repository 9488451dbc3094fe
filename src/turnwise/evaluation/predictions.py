"""Anyone's predictions: SWE-bench's preds.json (by instance id or as a list) or JSON lines."""

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, Field, ValidationError, field_validator

from turnwise.errors import InputError
from turnwise.types import Task


class Prediction(BaseModel):
    """One row. A patch that is missing or null is an empty one."""

    instance_id: str = Field(min_length=1)
    model_patch: str | None = None
    model_name_or_path: str | None = None

    @field_validator("model_patch")
    @classmethod
    def _is_text(cls, patch: str | None) -> str | None:
        if patch is not None and not _can_be_written(patch):
            raise ValueError("holds half a character (a lone surrogate), which no file can hold")
        return patch

    @property
    def patch(self) -> str:
        """The patch as text."""
        return self.model_patch or ""


def _can_be_written(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


@dataclass(frozen=True)
class Matched:
    """Predictions beside a task set: those that can be graded, and what is wrong with the rest.

    `pairs` are in the order of the tasks; `unknown` are ids that no task has, `without` tasks that have no prediction,
    `patchless` predictions that hold no patch (they are graded, as empty).
    """

    pairs: tuple[tuple[Task, Prediction], ...]
    unknown: tuple[str, ...]
    without: tuple[str, ...]
    patchless: tuple[str, ...]


def read_predictions(path: Path) -> list[Prediction]:
    """The predictions of a .json or .jsonl file, in its order.

    Raises InputError naming the file and the place of what cannot be read, and an id that is there twice.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read as text ({error}); give a preds.json or a .jsonl file") from error
    rows = _json_lines(path, text) if path.suffix == ".jsonl" else _json(path, text)
    predictions: dict[str, Prediction] = {}
    for place, row in rows:
        prediction = _parse(row, f"{path}: {place}")
        if prediction.instance_id in predictions:
            raise InputError(f"{path}: {place}: {prediction.instance_id!r} is there twice; grade one attempt at a time")
        predictions[prediction.instance_id] = prediction
    if not predictions:
        raise InputError(f"{path}: holds no predictions")
    return list(predictions.values())


def match(predictions: Iterable[Prediction], tasks: Sequence[Task]) -> Matched:
    """Find each prediction its task."""
    by_id = {prediction.instance_id: prediction for prediction in predictions}
    known = {task.instance_id for task in tasks}
    return Matched(
        pairs=tuple((task, by_id[task.instance_id]) for task in tasks if task.instance_id in by_id),
        unknown=tuple(each for each in by_id if each not in known),
        without=tuple(task.instance_id for task in tasks if task.instance_id not in by_id),
        patchless=tuple(each for each, prediction in by_id.items() if not prediction.patch.strip()),
    )


Row = tuple[str, Any]  # where it stands in the file, and what stands there


def _json(path: Path, text: str) -> list[Row]:
    try:
        content = _decoded(text)
    except ValueError as error:
        raise InputError(f"{path}: not valid JSON: {error}; JSON lines belong in a .jsonl file") from error
    if isinstance(content, dict):
        return [(f"entry {key!r}", _with_id(path, key, row)) for key, row in content.items()]
    if isinstance(content, list):
        return [(f"entry {number}", row) for number, row in enumerate(content)]
    raise InputError(f"{path}: holds neither a list of predictions nor an object of them by instance id")


def _with_id(path: Path, key: str, row: Any) -> Any:
    """Some write the id as the key alone."""
    if not isinstance(row, dict):
        return row
    if row.get("instance_id", key) != key:
        raise InputError(f"{path}: entry {key!r}: is for another instance_id, {row['instance_id']!r}")
    return {"instance_id": key, **row}


def _json_lines(path: Path, text: str) -> list[Row]:
    rows = []
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            try:
                rows.append((f"line {number}", _decoded(line)))
            except ValueError as error:
                raise InputError(f"{path}: line {number}: not valid JSON: {error}") from error
    return rows


def _decoded(text: str) -> Any:
    """What a JSON text says. Raises ValueError, also for a key that stands twice in an object."""
    try:
        return json.loads(text, object_pairs_hook=_object, parse_constant=_number)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


def _number(name: str) -> float | None:
    """NaN is what pandas writes for a missing patch."""
    return None if name == "NaN" else float(name)


def _object(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    twice = [key for key, count in Counter(key for key, _ in pairs).items() if count > 1]
    if twice:
        raise ValueError(f"{twice[0]!r} is there twice in one object")
    return dict(pairs)


def _parse(row: Any, place: str) -> Prediction:
    try:
        return Prediction.model_validate(row)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise InputError(f"{place}: {f'field {where!r}: ' if where else ''}{first['msg']}") from error
