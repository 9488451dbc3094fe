"""What the rows of all formats share: the kinds of their fields, and SWE-bench's own fields."""

import ast
import json
import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

from turnwise.types import Task

_LONGEST_ID = 200  # bytes: a file's name may have 255, with what is put around the id
REVISION = "^[0-9A-Za-z][0-9A-Za-z._/^~-]*$"


def nan_as_none(value: Any) -> Any:
    """The content of a row with None in place of NaN, which pandas writes for a missing text.

    What is nested deeper than Python can follow is given back as it is.

    >>> nan_as_none({"hints_text": float("nan"), "tests": ["a", float("nan")]})
    {'hints_text': None, 'tests': ['a', None]}
    """
    try:
        return _nan_as_none(value)
    except RecursionError:
        return value


def _nan_as_none(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _nan_as_none(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [_nan_as_none(part) for part in value]
    return None if isinstance(value, float) and math.isnan(value) else value


def decoded(value: object) -> object:
    """A list or mapping that stands as JSON, or as Python would print it, in a string; anything else as it is."""
    if not isinstance(value, str):
        return value
    with suppress(ValueError, RecursionError):
        return nan_as_none(json.loads(value))
    try:
        return ast.literal_eval(value)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError) as error:
        raise ValueError("is written neither as JSON nor as a Python literal") from error


def _listed(value: object) -> object:
    if value is None or isinstance(value, str):
        value = (value or "",)
    return tuple(line for line in value if line != "") if isinstance(value, list | tuple) else value


def _dated(value: object) -> object:
    if isinstance(value, int | float):  # milliseconds, as SWE-rebench v2 has it
        try:
            value = datetime.fromtimestamp(value / 1000, UTC)
        except (ValueError, OverflowError, OSError) as error:
            raise ValueError(f"is no time in milliseconds ({error})") from error
    return value.isoformat() if isinstance(value, datetime) else value


def _without_path(instance_id: str) -> str:
    if instance_id in (".", "..") or any(sign in "/\\" or sign.isspace() for sign in instance_id):
        raise ValueError("may hold no slash and no space, for files are named by it")
    if not instance_id.isprintable() or len(instance_id.encode(errors="replace")) > _LONGEST_ID:
        raise ValueError(f"may hold no control character and at most {_LONGEST_ID} bytes, for files are named by it")
    return instance_id


def _without_steps(repo: str) -> str:
    if not {".", ".."}.isdisjoint(repo.split("/")):
        raise ValueError("should be OWNER/NAME")
    return repo


Text = Annotated[str, Field(min_length=1)]
InstanceId = Annotated[Text, AfterValidator(_without_path)]
Repository = Annotated[str, Field(pattern=r"^[^/\s]+/[^/\s]+$"), AfterValidator(_without_steps)]
Revision = Annotated[str, Field(pattern=REVISION)]
Date = Annotated[str, BeforeValidator(_dated)]
TestIds = Annotated[tuple[Text, ...], BeforeValidator(decoded)]
SomeTestIds = Annotated[TestIds, Field(min_length=1)]
Lines = Annotated[tuple[str, ...], BeforeValidator(_listed)]
SomeLines = Annotated[Lines, Field(min_length=1)]


class Row(BaseModel, ABC):
    """The fields of a row as its format has them; unknown ones are passed over."""

    @abstractmethod
    def task(self) -> Task:
        """The task that the row describes. Raises TaskError, which names the field, for what only shows here."""


class ForeignRow(Row):
    """Fields that a row of any format but our own may have beside its own."""

    model_config = ConfigDict(coerce_numbers_to_str=True)

    hints_text: str = ""
    created_at: Date = ""
    version: str = ""
    environment_setup_commit: str = ""
    meta: Annotated[dict[str, Any], BeforeValidator(decoded)] = Field(default_factory=dict)
    split: str | None = None
    difficulty: Any = None
    language: str | None = None
    license_name: str | None = None


class SweBenchRow(ForeignRow):
    """SWE-bench's own fields (its docs/guides/datasets.md), which most formats keep."""

    instance_id: InstanceId
    repo: Repository
    base_commit: Revision
    patch: Text
    test_patch: Text
    problem_statement: Text
    FAIL_TO_PASS: SomeTestIds
    PASS_TO_PASS: TestIds = ()


def told_beside(row: ForeignRow) -> dict[str, Any]:
    """The arguments of `Task` that any row may tell; what `Task` has no field for goes into its `meta`."""
    beside = {name: getattr(row, name) for name in ("split", "difficulty", "language", "license_name")}
    return {
        "hints_text": row.hints_text,
        "created_at": row.created_at,
        "version": row.version,
        "environment_setup_commit": row.environment_setup_commit,
        "meta": {name: value for name, value in beside.items() if value is not None} | row.meta,
    }


def told(row: SweBenchRow) -> dict[str, Any]:
    """The arguments of `Task` that a row with SWE-bench's fields tells: all but `environment` and `test_run`."""
    own = ("instance_id", "repo", "base_commit", "patch", "test_patch", "problem_statement")
    tests = {"fail_to_pass": row.FAIL_TO_PASS, "pass_to_pass": row.PASS_TO_PASS}
    return told_beside(row) | {name: getattr(row, name) for name in own} | tests
