"""Our own rows: SWE-bench's field names, plus `environment` (tagged by `kind`), `test_run` and `meta`."""

import re
from collections.abc import Mapping
from dataclasses import MISSING, fields
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Discriminator, Field, Tag, ValidationInfo, field_validator

from turnwise.tasks.formats.fields import InstanceId, Repository, Revision, Row, SomeTestIds, TestIds, Text
from turnwise.types import Checkout, Installation, SourceDistribution, Task, TestRun

KINDS = ("source_distribution", "checkout")


class _SourceDistribution(BaseModel):
    package: Text
    version: Text
    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
    requirements: tuple[str, ...] = ()
    import_paths: tuple[str, ...] = ("",)

    def value(self) -> SourceDistribution:
        return SourceDistribution(**self.model_dump())


class _Installation(BaseModel):
    python: str = ""
    pre_install: tuple[str, ...] = ()
    requirements: str = ""
    requirement_files: tuple[str, ...] = ()
    environment: str = ""
    environment_files: tuple[str, ...] = ()
    pip_packages: tuple[str, ...] = ()
    install: tuple[str, ...] = ()
    env: dict[str, str] = Field(default_factory=dict)


class _Checkout(BaseModel):
    installation: _Installation = _Installation()
    image: str = ""
    workdir: str = "/testbed"
    setup_patch: str = ""

    def value(self) -> Checkout:
        named = {name: getattr(self, name) for name in ("image", "workdir", "setup_patch")}
        return Checkout(Installation(**self.installation.model_dump()), **named)


class _TestRun(BaseModel):
    command: Text
    log_parser: Text
    eval_type: Literal["pass_and_fail", "fail_only"] = "pass_and_fail"


def _kind(environment: Any) -> str:
    """Rows without a kind are older than checkouts are."""
    return str(environment.get("kind", KINDS[0])) if isinstance(environment, dict) else KINDS[0]


_Environment = Annotated[
    Annotated[_SourceDistribution, Tag(KINDS[0])] | Annotated[_Checkout, Tag(KINDS[1])], Discriminator(_kind)
]


class OwnRow(Row):
    """A row that `row` wrote. Only a task of a repository whose tests lie in it already has an empty test patch."""

    instance_id: InstanceId
    repo: Repository
    environment: _Environment
    base_commit: Revision
    patch: Text
    test_patch: str
    problem_statement: Text
    FAIL_TO_PASS: SomeTestIds
    PASS_TO_PASS: TestIds
    test_run: _TestRun | None = None
    hints_text: str = ""
    created_at: str = ""
    version: str = ""
    environment_setup_commit: str = ""
    meta: dict[str, Any] = Field(default_factory=dict)

    @field_validator("base_commit")
    @classmethod
    def _is_hash(cls, value: str, info: ValidationInfo) -> str:
        if isinstance(info.data.get("environment"), _SourceDistribution) and not re.fullmatch("[0-9a-f]{40}", value):
            raise ValueError("should be a whole commit hash")
        return value

    @field_validator("test_patch")
    @classmethod
    def _is_there(cls, value: str, info: ValidationInfo) -> str:
        if not value and not isinstance(info.data.get("environment"), _Checkout):
            raise ValueError("should not be empty")
        return value

    def task(self) -> Task:
        """The task."""
        named = {name: getattr(self, name) for name in type(self).model_fields if name.islower()}
        named["environment"] = self.environment.value()
        named["test_run"] = self.test_run and TestRun(**self.test_run.model_dump())
        return Task(**named, fail_to_pass=self.FAIL_TO_PASS, pass_to_pass=self.PASS_TO_PASS)


def row(task: Task) -> dict[str, Any]:
    """A task as the mapping that stands on one line of a file; reading it gives the task again."""
    kind = KINDS[isinstance(task.environment, Checkout)]
    return {
        "instance_id": task.instance_id,
        "repo": task.repo,
        "base_commit": task.base_commit,
        "patch": task.patch,
        "test_patch": task.test_patch,
        "problem_statement": task.problem_statement,
        "hints_text": task.hints_text,
        "created_at": task.created_at,
        "version": task.version,
        "FAIL_TO_PASS": list(task.fail_to_pass),
        "PASS_TO_PASS": list(task.pass_to_pass),
        "environment_setup_commit": task.environment_setup_commit,
        "environment": {"kind": kind} | _told(task.environment),
        "test_run": task.test_run and _told(task.test_run),
        "meta": dict(task.meta),
    }


def _told(value: Any) -> dict[str, Any]:
    """The fields of a dataclass that are not at their defaults, as JSON has them."""
    told = {}
    for field in fields(value):
        content = getattr(value, field.name)
        default = field.default if field.default_factory is MISSING else field.default_factory()
        if content != default:
            told[field.name] = _plain(content)
    return told


def _plain(content: Any) -> Any:
    if isinstance(content, Installation):
        return _told(content)
    if isinstance(content, tuple):
        return list(content)
    return dict(content) if isinstance(content, Mapping) else content
