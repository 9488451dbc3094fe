"""The paper's filters (PAPER.md, sec. 4.1) as predicates on tasks, and the funnel that counts what each drops."""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from turnwise.errors import TaskError
from turnwise.tasks.diffs import PatchSize, patch_size
from turnwise.tasks.verdicts import GateVerdict
from turnwise.types import Task

_BROKEN = re.compile(r"\b(AttributeError|ImportError|ModuleNotFoundError)\b")


@dataclass(frozen=True)
class Filter:
    """A condition that a task must meet, with the words that a funnel counts its drops under.

    >>> Filter("issue is told", lambda task: bool(task.problem_statement)).name
    'issue is told'
    """

    name: str
    keeps: Callable[[Task], bool]


@dataclass(frozen=True)
class Step:
    """One row of a funnel: the instance ids that a filter dropped, and how many tasks it left."""

    name: str
    dropped: tuple[str, ...]
    left: int


@dataclass(frozen=True)
class Funnel:
    """The tasks that every filter keeps, and what happened on the way."""

    tasks: tuple[Task, ...]
    steps: tuple[Step, ...]


def funnel(tasks: Sequence[Task], filters: Sequence[Filter]) -> Funnel:
    """Put tasks through filters one after the other; each filter sees what those before it kept."""
    steps = []
    left = tuple(tasks)
    for one in filters:
        kept = tuple(task for task in left if one.keeps(task))
        ids = {task.instance_id for task in kept}
        dropped = tuple(task.instance_id for task in left if task.instance_id not in ids)
        steps.append(Step(one.name, dropped, len(kept)))
        left = kept
    return Funnel(left, tuple(steps))


def paper_filters(
    max_files: int = 7,
    max_lines: int = 500,
    max_llm_score: float = 3.0,
    verdicts: Mapping[str, GateVerdict] | None = None,
) -> list[Filter]:
    """The filters of sec. 4.1, in its order, on what is a diff at all; the gate's own only with its verdicts, which
    know what a row does not."""
    own = [
        Filter("patch is a diff", lambda task: size_of(task).files > 0),
        Filter("failing tests fail on no import or attribute", lambda task: has_valid_references(task, verdicts or {})),
        Filter(f"at most {max_files} files changed", lambda task: size_of(task).files <= max_files),
        Filter(f"fewer than {max_lines} lines changed", lambda task: size_of(task).lines < max_lines),
        Filter(f"every LLM score below {max_llm_score:g}", lambda task: worst_score(task) < max_llm_score),
    ]
    return own if verdicts is None else own + gate_filters(verdicts)


def gate_filters(verdicts: Mapping[str, GateVerdict]) -> list[Filter]:
    """What only running a task tells: that no test is flaky, and that the gate admitted it."""

    def is_steady(task: Task) -> bool:
        return task.instance_id not in verdicts or not verdicts[task.instance_id].flaky

    def is_admitted(task: Task) -> bool:
        return task.instance_id in verdicts and verdicts[task.instance_id].admitted

    return [Filter("no flaky test", is_steady), Filter("admitted by the gate", is_admitted)]


def has_valid_references(task: Task, verdicts: Mapping[str, GateVerdict]) -> bool:
    """False where the failing tests fail on an import or an attribute: by the row's metadata or the gate's reason."""
    verdict = verdicts.get(task.instance_id)
    told = verdict is not None and _BROKEN.search(verdict.reason or "")
    return not told and not any(_BROKEN.fullmatch(text) for text in _texts(task.meta))


def size_of(task: Task) -> PatchSize:
    """How much the gold patch changes: no file where it is no diff."""
    try:
        return patch_size(task.patch)
    except TaskError:
        return PatchSize(0, 0)


def worst_score(task: Task) -> float:
    """The worst of the scores that a model gave the task: SWE-rebench's `meta.llm_score`, from 0 (best) to 3.

    -inf, which is below any bound, where there is none, as in the rows of most formats.
    """
    scores = task.meta.get("llm_score")
    given = scores.values() if isinstance(scores, Mapping) else ()
    return max((float(score) for score in given if isinstance(score, int | float)), default=float("-inf"))


def _texts(content: Any) -> Iterator[str]:
    """The texts of a row's metadata, however deep."""
    if isinstance(content, str):
        yield content
    elif isinstance(content, Mapping | list | tuple):
        for part in content.values() if isinstance(content, Mapping) else content:
            yield from _texts(part)
