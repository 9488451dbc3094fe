"""Which commits could be tasks: those that change source and tests, say that they mend something, and are not large."""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import PurePosixPath

from turnwise.errors import TaskError
from turnwise.tasks.baseline import is_test_path
from turnwise.tasks.checkout.repositories import History
from turnwise.tasks.diffs import PatchSize, patch_size
from turnwise.tasks.filters import Step
from turnwise.tasks.mine.commits import Change, Commit, iso, read_changes, read_commits, read_patch
from turnwise.tasks.mine.names import instance_ids, pull_of
from turnwise.tasks.mine.story import Links, is_chore, is_thin_alone, says_work, told_problem
from turnwise.types import Checkout, Task

_IS_FIX = re.compile(
    r"\b(fix(e[sd]|ing)?|bug(s|fix(es)?)?|hotfix|resolv(e[sd]?|ing)|clos(e[sd]?|ing)|regress(es|ed|ions?)|crash(es|ed)?"
    r"|broken|repair(s|ed)?|incorrect(ly)?|wrong(ly)?|mistake(nly)?)\b|^\W*correct(s|ed)?\b",
    re.IGNORECASE,
)
_FRAGMENT = re.compile(r"\.(bugfix|fix)\.[^/]*$")  # towncrier's news of a mended bug
_NOT_RUN = ("conftest.py", "__init__.py")


@dataclass(frozen=True)
class Rules:
    """What is asked of a commit: the paper's sizes (PAPER.md, sec. 4.1), and the first day (UTC) that counts."""

    max_files: int = 7
    max_lines: int = 500
    since: date | None = None


@dataclass(frozen=True)
class Candidate:
    """A commit that may become a task. `task` is the row without its tests' ids, which only runs can tell; `test_files`
    are those that the runs are of. `is_thin`: what its tests show should be told with it, and `linked`, before other
    messages."""

    change: Change
    task: Task
    test_files: tuple[str, ...]
    linked: tuple[str, ...]
    is_thin: bool


@dataclass(frozen=True)
class Prospects:
    """The candidates of a history, newest first, of how many `commits`, and which of these each step dropped.

    >>> Prospects(1, (Step("said to be fixes", ("9f8a…",), 0),), ()).steps[0].left
    0
    """

    commits: int
    steps: tuple[Step, ...]
    candidates: tuple[Candidate, ...]


def find_candidates(history: History, tip: str, repo: str, rules: Rules, tries: int = 0) -> Prospects:
    """Go back from commit `tip`, newest first, until there are `tries` candidates (0: to the end).

    A commit whose content the repository lacks in part, or whose patch is no UTF-8 text, is none. Raises TaskError
    where git fails on the history as a whole.
    """
    commits = read_commits(history, tip)
    links = Links(commits.values())
    changes = [change for change in read_changes(history, commits, tip) if _is_since(change.commit, rules.since)]
    looked, dropped = 0, {name: list[str]() for name in (*_ASKED, _SIZE)}
    found: list[Candidate] = []
    for name, change in zip(instance_ids(repo, changes), changes, strict=True):
        if tries and len(found) == tries:
            break
        looked += 1
        lacking = next((asked for asked, has in _ASKED.items() if not has(change)), None)
        candidate = None if lacking else _Draft(history, repo, name, change, links).candidate(rules)
        if candidate is None:
            dropped[lacking or _SIZE].append(change.commit.id)
        else:
            found.append(candidate)
    return Prospects(looked, tuple(_steps(looked, dropped)), tuple(found))


def _steps(looked: int, dropped: Mapping[str, Sequence[str]]) -> Iterator[Step]:
    left = looked
    for name, commits in dropped.items():
        left -= len(commits)
        yield Step(name, tuple(commits), left)


def says_fix(change: Change) -> bool:
    """Whether a change says that it mends something: in its message, one that it merges, or a news fragment."""
    if is_chore(change.commit.message):
        return False
    lines = change.commit.message.splitlines()
    lines += [line for commit in change.merged for line in commit.message.splitlines()]
    said = any(_IS_FIX.search(line) and not says_work(line) for line in lines)
    return said or any(map(_FRAGMENT.search, change.files))


def _is_since(commit: Commit, day: date | None) -> bool:
    return day is None or iso(commit.committed_s)[:10] >= day.isoformat()


def _has_source_and_tests(change: Change) -> bool:
    source = any(path.endswith(".py") and not is_test_path(path) for path in change.files)
    return source and bool(_files_to_run(change))


def _files_to_run(change: Change) -> tuple[str, ...]:
    return tuple(
        path
        for path, status in sorted(change.files.items())
        if status != "D" and path.endswith(".py") and is_test_path(path) and PurePosixPath(path).name not in _NOT_RUN
    )


_ASKED: Mapping[str, Callable[[Change], bool]] = {
    "touch source and tests": _has_source_and_tests,
    "said to be fixes": says_fix,
}
_SIZE = "read whole, within size"


@dataclass(frozen=True)
class _Draft:
    """One change on its way to a candidate."""

    history: History
    repo: str
    name: str
    change: Change
    links: Links

    def candidate(self, rules: Rules) -> Candidate | None:
        """None for what is too large, or cannot be read whole."""
        source = [path for path in self.change.files if not is_test_path(path)]
        if len(source) > rules.max_files:
            return None
        try:
            gold = read_patch(self.history, self.change, source)
            tests = read_patch(self.history, self.change, [path for path in self.change.files if is_test_path(path)])
            size = patch_size(gold or "")
        except TaskError:
            return None
        if not gold or not tests or not _is_within(size, rules):
            return None
        linked = self.links.of(self.change)
        task = self._task(gold, tests, told_problem(self.change, linked, gold))
        return Candidate(self.change, task, _files_to_run(self.change), tuple(linked), is_thin_alone(self.change, gold))

    def _task(self, gold: str, tests: str, problem: str) -> Task:
        commit, pull = self.change.commit, pull_of(self.change.commit)
        return Task(
            instance_id=self.name,
            repo=self.repo,
            base_commit=commit.parents[0],
            patch=gold,
            test_patch=tests,
            problem_statement=problem,
            fail_to_pass=(),
            pass_to_pass=(),
            environment=Checkout(),
            created_at=iso(commit.committed_s),
            meta={
                "commit": commit.id,
                **({} if pull is None else {"pull": pull}),
                "authored_at": iso(commit.authored_s),
            },
        )


def _is_within(size: PatchSize, rules: Rules) -> bool:
    return 0 < size.files <= rules.max_files and size.lines < rules.max_lines
