"""Task rows on disk: JSON lines with SWE-bench's field names, plus `environment` (how it is built) and `meta`."""

import json
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, Field, ValidationError

from turnwise.errors import TaskError
from turnwise.types import SourceDistribution, Task


def _decoded(value: object) -> object:
    """SWE-bench writes its test lists as JSON in a string; both forms are read."""
    return json.loads(value) if isinstance(value, str) else value


_Text = Annotated[str, Field(min_length=1)]
_TestIds = Annotated[tuple[_Text, ...], BeforeValidator(_decoded), Field(min_length=1)]


class _Environment(BaseModel):
    package: _Text
    version: _Text
    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
    requirements: tuple[str, ...] = ()
    import_paths: tuple[str, ...] = ("",)


class _Row(BaseModel):
    instance_id: _Text
    repo: _Text
    base_commit: Annotated[str, Field(pattern="^[0-9a-f]{40}$")]
    patch: _Text
    test_patch: _Text
    problem_statement: _Text
    FAIL_TO_PASS: _TestIds
    PASS_TO_PASS: _TestIds
    environment: _Environment
    hints_text: str = ""
    created_at: str = ""
    version: str = ""
    environment_setup_commit: str = ""
    meta: dict[str, Any] = Field(default_factory=dict)

    def task(self) -> Task:
        named = {name: getattr(self, name) for name in type(self).model_fields if name.islower()}
        named["environment"] = SourceDistribution(**self.environment.model_dump())
        return Task(**named, fail_to_pass=self.FAIL_TO_PASS, pass_to_pass=self.PASS_TO_PASS)


def read_tasks(path: Path) -> list[Task]:
    """The tasks of a JSON-lines file, in its order.

    Raises TaskError naming file, line and field for a row that lacks something, is malformed or repeats an id.
    """
    try:
        lines = Path(path).read_text(encoding="utf-8").split("\n")
    except OSError as error:
        raise TaskError(f"{path}: cannot be read ({error.strerror}); give a JSON-lines file of tasks") from error
    tasks: dict[str, Task] = {}
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        task = _parse(line, f"{path}:{number}")
        if task.instance_id in tasks:
            raise TaskError(f"{path}:{number}: field 'instance_id': {task.instance_id!r} is there twice")
        tasks[task.instance_id] = task
    if not tasks:
        raise TaskError(f"{path}: holds no tasks; make some with `turnwise tasks make PACKAGE==VERSION`")
    return list(tasks.values())


def _parse(line: str, place: str) -> Task:
    try:
        return _Row.model_validate_json(line).task()
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise TaskError(f"{place}: field {where!r}: {first['msg']}" if where else f"{place}: {first['msg']}") from error


def write_tasks(path: Path, tasks: Iterable[Task]) -> None:
    """Write tasks as JSON lines; the file appears whole or not at all."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile("w", dir=path.parent, encoding="utf-8", delete=False) as file:
        for task in tasks:
            file.write(json.dumps(row(task), ensure_ascii=False) + "\n")
    Path(file.name).chmod(0o644)
    Path(file.name).replace(path)


def row(task: Task) -> dict[str, Any]:
    """A task as the mapping that stands on one line of a file; `read_tasks` of it gives the task again."""
    environment = task.sdist
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
        "environment": {
            "package": environment.package,
            "version": environment.version,
            "sha256": environment.sha256,
            "requirements": list(environment.requirements),
            "import_paths": list(environment.import_paths),
        },
        "meta": dict(task.meta),
    }
