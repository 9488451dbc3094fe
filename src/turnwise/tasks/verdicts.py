"""What the gate says of tasks, a JSON line each: how it is written, read, and gone on with after an interruption."""

import os
from collections.abc import Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from typing import IO

from pydantic import BaseModel, ValidationError
from pydantic_core import from_json

from turnwise.errors import InputError, TaskError
from turnwise.files import require_regular, write_text_whole
from turnwise.types import Checkout, Task

NO_GATE = "none"
_BEGINNING = '{"instance_id":'
_NAMED = 5


class Fault(StrEnum):
    """Why a task is not admitted; `INFRASTRUCTURE` says nothing about the task."""

    ROW = "row"
    ENVIRONMENT = "environment"
    FLAKY = "flaky tests"
    NETWORK = "needs network"
    GOLD = "gold patch"
    EMPTY = "without the fix"
    NO_FAILING_TEST = "no failing test"
    LEAK = "leak"
    INFRASTRUCTURE = "infrastructure"


class GateVerdict(BaseModel):
    """What the gate says of a task: one line of its verdicts file.

    `gold`: the gold patch resolved in every run. `empty`: a patch that does nothing does not resolve it. `flaky` are
    the tests that ended differently under the gold patch. `network`: it resolves only with network. `leaks` are what
    the agent's sandbox shows of the solution. `variants` counts mutated hidden tests that the gold patch fails.
    `build_s` is what the environment took when it was built, `test_s` the longest run of the tests. `reason` of an
    admitted task is a remark.

    >>> GateVerdict(instance_id="a__b-1", admitted=True, gold=True, empty=True).flaky
    ()
    """

    instance_id: str
    admitted: bool
    reason: str | None = None
    fault: Fault | None = None
    gold: bool = False
    empty: bool = False
    flaky: tuple[str, ...] = ()
    network: bool = False
    leaks: tuple[str, ...] = ()
    variants: int = 0
    build_s: float = 0.0
    test_s: float = 0.0


class VerdictFile:
    """A verdicts file that is being written: what it holds already, and one line more at a time.

    Opening takes out what says nothing: a last line that an interruption tore, and tasks that the infrastructure
    failed. Raises TaskError naming a line that is no verdict; such a file is left as it is.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        text = _held(path)
        whole = _without_torn_line(text)
        held = _parse(whole, path)
        self.verdicts = {name: one for name, one in held.items() if one.fault is not Fault.INFRASTRUCTURE}
        if not path.exists() or whole != text or len(self.verdicts) < len(held):
            write_text_whole(path, "".join(_line(verdict) for verdict in self.verdicts.values()))

    def add(self, verdict: GateVerdict) -> None:
        """Append a verdict; it is on the disk when this returns."""
        with self._path.open("a", encoding="utf-8") as file:
            _append(file, _line(verdict))
        self.verdicts[verdict.instance_id] = verdict


def read_verdicts(path: Path) -> dict[str, GateVerdict]:
    """The gate's verdicts by instance id; of several on one task the last holds.

    Raises TaskError naming file and line.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise TaskError(f"{path}: cannot be read ({error.strerror}); `turnwise tasks validate` writes it") from error
    return _parse(text, path)


def require_gate(tasks: Sequence[Task], gate: str | None) -> None:
    """Raise InputError naming the tasks that may not be trained on: those that `gate`, a verdicts file, does not admit.

    Without one (None) these are the tasks of repositories: a task made from a package passed when it was made. "none"
    lets all through.
    """
    if gate == NO_GATE:
        return
    if gate is None:
        ungated = [task.instance_id for task in tasks if isinstance(task.environment, Checkout)]
        if ungated:
            raise InputError(
                f"tasks.gate: {_named(ungated)} did not pass the gate: run `turnwise tasks validate` on the tasks and "
                'give the file that it writes as tasks.gate, or set tasks.gate = "none" to train on them unchecked'
            )
        return
    verdicts = read_verdicts(Path(gate))
    refused = [_told(task, verdicts) for task in tasks if not _admits(task, verdicts)]
    if refused:
        raise InputError(
            f"tasks.gate: {gate} does not admit {_named(refused)}; `turnwise tasks filter --verdicts {gate}` takes "
            "such tasks out, and `turnwise tasks validate` checks those that have no line"
        )


def _admits(task: Task, verdicts: Mapping[str, GateVerdict]) -> bool:
    return task.instance_id in verdicts and verdicts[task.instance_id].admitted


def _told(task: Task, verdicts: Mapping[str, GateVerdict]) -> str:
    verdict = verdicts.get(task.instance_id)
    return f"{task.instance_id} ({'no line' if verdict is None else verdict.reason or 'refused'})"


def _named(names: Sequence[str]) -> str:
    more = len(names) - _NAMED
    return ", ".join(names[:_NAMED]) + (f" and {more} more" if more > 0 else "")


def _held(path: Path) -> str:
    require_regular(path)
    try:
        return path.read_bytes().decode("utf-8", errors="replace")
    except FileNotFoundError:
        return ""
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error


def _without_torn_line(text: str) -> str:
    """The text less a last line that was not written to its end, as far as it can be one of a verdicts file.

    It stands after other lines, which are looked at anyway, or begins as a verdict does. Anything else is left to be
    refused: it is of a file of another kind.
    """
    before, end, last = text.rpartition("\n")
    if not last.strip() or not (before.strip() or last.startswith(_BEGINNING)):
        return text
    try:
        from_json(last)
    except ValueError:
        return before + end
    return f"{text}\n"


def _line(verdict: GateVerdict) -> str:
    return verdict.model_dump_json() + "\n"


def _append(file: IO[str], line: str) -> None:
    file.write(line)
    file.flush()
    os.fsync(file.fileno())


def _parse(text: str, path: Path) -> dict[str, GateVerdict]:
    verdicts = {}
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            verdict = _verdict(line, f"{path}:{number}")
            verdicts[verdict.instance_id] = verdict
    return verdicts


def _verdict(line: str, place: str) -> GateVerdict:
    try:
        return GateVerdict.model_validate_json(line)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(map(str, first["loc"]))
        told = f"field {where!r}: {first['msg']}" if where else f"is no verdict ({first['msg']})"
        raise TaskError(f"{place}: {told}") from error
