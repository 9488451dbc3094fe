"""The row formats of the field, each one pydantic model with a `task()`, and how a row tells which it is of."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from pydantic import ValidationError

from turnwise.errors import TaskError
from turnwise.tasks.formats.facts import dataset_of
from turnwise.tasks.formats.fields import Row, nan_as_none
from turnwise.tasks.formats.own import KINDS, OwnRow, row
from turnwise.tasks.formats.pro import ProRow
from turnwise.tasks.formats.r2e import R2ERow
from turnwise.tasks.formats.rebench import RebenchRow, RebenchV2Row
from turnwise.tasks.formats.smith import SmithRow
from turnwise.tasks.formats.sound import require_sound
from turnwise.tasks.formats.swebench import ClassicRow, ScriptedRow
from turnwise.types import Task

__all__ = ["FORMATS", "Format", "row", "task_of"]

Raw = Mapping[str, Any]


@dataclass(frozen=True)
class Format:
    """A format: its name, what tells its rows from others', and the model that reads them.

    `task_of` asks the formats in the order of `FORMATS`; the first that recognises a row reads it.
    """

    name: str
    recognises: Callable[[Raw], bool]
    model: type[Row]

    @property
    def required(self) -> list[str]:
        """The fields that a row of this format must have."""
        return [name for name, field in self.model.model_fields.items() if field.is_required()]

    def nearness(self, row: Raw) -> float:
        """The share of the required fields that a row has."""
        return sum(name in row for name in self.required) / len(self.required)


FORMATS = (
    Format("Turnwise", lambda row: isinstance(row.get("environment"), dict), OwnRow),
    Format("R2E-Gym", lambda row: "expected_output_json" in row, R2ERow),
    Format("SWE-smith", lambda row: str(row.get("repo", "")).startswith("swesmith/"), SmithRow),
    Format("SWE-bench Pro", lambda row: "selected_test_files_to_run" in row, ProRow),
    Format("SWE-rebench v2", lambda row: "base_image_name" in str(row.get("install_config")), RebenchV2Row),
    Format("SWE-rebench v1", lambda row: "install_config" in row, RebenchRow),
    Format("SWE-bench (scripted)", lambda row: "eval_script" in row, ScriptedRow),
    Format("SWE-Gym", lambda row: dataset_of(str(row.get("repo", ""))) == "swe-gym", ClassicRow),
    Format("SWE-bench", lambda row: {"instance_id", "repo", "FAIL_TO_PASS"} <= row.keys(), ClassicRow),
)


def task_of(row: Raw) -> Task:
    """The task that a row of any known format describes; `meta["format"]` names a foreign one.

    A field that is null or NaN is missing. Raises TaskError that names the first field at fault or, for a row of no
    format, those that the nearest one needs.
    """
    told = {name: value for name, value in nan_as_none(row).items() if value is not None}
    form = next((form for form in FORMATS if form.recognises(told)), None)
    if form is None:
        nearest = max(reversed(FORMATS), key=lambda form: form.nearness(told))
        lacking = [name for name in nearest.required if name not in told]
        raise TaskError(f"is of no known format; for {nearest.name} it lacks {', '.join(lacking)}")
    try:
        task = form.model.model_validate(told).task()
    except ValidationError as error:
        raise TaskError(_fault(error)) from error
    told_by = {} if form.model is OwnRow else {"format": form.name}
    task = replace(task, meta=told_by | _plain(task.meta))
    require_sound(task)
    return task


def _plain(meta: Mapping[str, Any]) -> dict[str, Any]:
    """Metadata as a line of JSON gives it back: tables hold dates and the like."""
    try:
        plain: dict[str, Any] = json.loads(json.dumps(dict(meta), default=str))
    except (TypeError, ValueError, RecursionError) as error:
        raise TaskError(f"field 'meta': is not to be written as JSON ({error})") from error
    return plain


def _fault(error: ValidationError) -> str:
    first = error.errors(include_url=False)[0]
    where = ".".join(str(part) for part in first["loc"] if part not in KINDS)
    return f"field {where!r}: {first['msg'].removeprefix('Value error, ')}"
