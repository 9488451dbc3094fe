"""The problem of a mined task: what its commits and its pull request say, less the fix and the noise around it."""

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from turnwise.tasks.diffs import added_lines, hunk_headers
from turnwise.tasks.issue import issue_text
from turnwise.tasks.mine.commits import Change, Commit
from turnwise.tasks.mine.names import links_of, pull_of
from turnwise.types import TestFailure

MAX_CHARS = 6000
THIN_WORDS = 40
_QUOTED = 8  # a line of the fix that is not longer than this may stand within another one: "else:", "return"
_MAX_LINKS = 3  # a message that links to more is of a release, or a list of news
_MAX_LINKED = 2
_MAX_MERGED = 20
_PROSE = (".rst", ".md", ".txt", ".rest", ".markdown")
_TRAILER = re.compile(
    r"^((signed-off|co-authored|reviewed|acked|tested|approved|reported|suggested|helped|co-developed)-by|change-id"
    r"|reviewed-on|git-svn-id|cc|pr-url|differential revision)\s*:|^\(cherry.picked from commit|^see merge request\b",
    re.IGNORECASE,
)
_MERGE = re.compile(
    r"^(merge (pull request|branch|remote|remote-tracking branch|commit|tag)\b|merge [0-9a-f]{7,40}\b|merged in\b)",
    re.IGNORECASE,
)
_LINKS_ALONE = re.compile(
    r"^((fix(es|ed)?|close[sd]?|resolve[sd]?|refs?|see|issue|part of|related to|and)?:?\s*"
    r"(#\d+|https?://\S+/(issues|pull)/\d+)[,.\s]*)+$",
    re.IGNORECASE,
)
# A title, or an entry of a list, that tells of the work on the code around the problem, not of the problem.
_WORK = re.compile(
    r"^\W*(fixup|squash|wip|oops|nits?|lint|black|isort|ruff|clean ?ups?|updates?|changes|revert|format(ting)?)\b"
    r"|\b(tests?|testing|test_\w+|\w+_test|review(er)?s?|feedback|suggestions?|typos?|lint(er|ing)?|flake8?|mypy|links?"
    r"|pre-?commit(\.ci)?|authors|change ?log|changes\.\w+|readme|docs?|docstrings?|documentation|quickstart|comments?"
    r"|typings?|type hints?|annotations?|coverage|refactor\w*|rename[ds]?|py\d\d)\b",
    re.IGNORECASE,
)
_CHORE = re.compile(r"^\W*(bump|chores?|ci|docs?|build|style|tests?|release|revert)\b[\s(:]", re.IGNORECASE)
_ENTRY = re.compile(r"^[*+-]\s+")
_PULL_AT_END = re.compile(r"(\s*\(?(pull request )?[#!]\d+\)?)+\s*$")


class Links:
    """The commits of a history by the issues and pull requests that they link to."""

    def __init__(self, commits: Iterable[Commit]) -> None:
        self._by_number: dict[int, list[Commit]] = defaultdict(list)
        for commit in commits:
            numbers = links_of(commit.message)
            if len(numbers) <= _MAX_LINKS:
                for number in numbers:
                    self._by_number[number].append(commit)

    def of(self, change: Change) -> list[str]:
        """What earlier commits say of the same issue or pull request, oldest first."""
        here = [change.commit, *change.merged]
        numbers = {number for commit in here for number in links_of(commit.message)}
        own, latest = {commit.id for commit in here}, change.commit.committed_s
        pull = pull_of(change.commit)
        found = {
            commit.id: commit
            for number in sorted(numbers | ({pull} if pull else set()))
            for commit in self._by_number.get(number, ())
            if commit.id not in own and commit.committed_s <= latest
        }
        earlier = sorted(found.values(), key=lambda commit: commit.committed_s)
        return [commit.message for commit in earlier[-_MAX_LINKED:]]


def told_problem(change: Change, linked: Sequence[str], patch: str, symptom: str = "") -> str:
    """The problem as the commits tell it: the change's own text and, as long as that is thin, `symptom`, what it
    squashes and merges, and `linked` messages.

    Trailers, merge lines and what only tells of the work are left out, and every paragraph that shows a line of the
    fix. At most `MAX_CHARS` characters; empty where nothing remains. With a symptom the mere titles of what was
    squashed and merged are left out too, for they tell how the problem was solved rather than what it was.
    """
    own, squashed = _own_and_squashed(change.commit.message)
    telling = [commit.message for commit in change.merged[:_MAX_MERGED] if not says_work(commit.title)]
    merged = [_own_and_squashed(message)[0] for message in telling]
    if symptom:
        squashed, merged = [], [lines for lines in merged if not is_thin("\n".join(lines))]
    earlier = [_own_and_squashed(message)[0] for message in linked]
    return _told([own, symptom.splitlines(), squashed, *merged, *earlier], patch)


def is_thin_alone(change: Change, patch: str) -> bool:
    """Whether a change's own text is so thin that what its tests show of the problem is worth a run."""
    return is_thin(_told([_own_and_squashed(change.commit.message)[0]], patch))


def _told(parts: Sequence[Sequence[str]], patch: str) -> str:
    """As many of the parts as it takes, each less what shows the fix and what was told before."""
    fix, told = _fix_lines(patch), set[str]()
    text = ""
    for part in parts:
        if is_thin(text):
            kept = (block for block in _blocks(part) if not any(_shows_fix(line, fix) for line in block.lines))
            new = "".join(block.text for block in kept if not _is_told(block.lines[0], told)).strip("\n")
            text = "\n\n".join(filter(None, [text, new]))
    return f"{text[:MAX_CHARS].strip()}\n" if text.strip() else ""


def is_thin(text: str) -> bool:
    """Whether a problem is told in too few words."""
    return len(text.split()) < THIN_WORDS


def told_symptom(
    failures: Mapping[str, TestFailure], patch: str, test_files: Sequence[str], test_ids: Sequence[str]
) -> str:
    """What the hidden tests show of the failure, naming none of them; empty where nothing is left to tell.

    `failures` are of a run without the fix, by test id, or by file where it could not even be collected.
    """
    chosen = {name: one for name, one in failures.items() if name in test_ids or name in test_files}
    if not chosen:
        return ""
    files = {frame.file for failure in chosen.values() for frame in failure.frames} - set(test_files)
    own = sorted(file for file in files if not file.startswith(("/", "<")))
    text = issue_text(chosen, _function(chosen, patch), own)
    hidden = _hidden_names([*test_ids, *test_files])
    return "\n".join(line for line in text.splitlines() if not any(name in line for name in hidden)).strip()


def says_work(line: str) -> bool:
    """Whether a title or an entry tells only of the work: tests, style, documents, what a review asked for.

    >>> says_work("* Fix typo in tests"), says_work("Fix the sign of add")
    (True, False)
    """
    return _WORK.search(line) is not None or _MERGE.search(line) is not None


def is_chore(message: str) -> bool:
    """Whether a message's title says at its beginning that this is no change of what the code does.

    >>> is_chore("Merge pull request #7 from bots/mypy\\n\\nBump mypy from 1.0 to 1.1")
    True
    """
    return any(_CHORE.search(line) for line in _own_and_squashed(message)[0][:1])


def _own_and_squashed(message: str) -> tuple[list[str], list[str]]:
    """The lines of a message that tell something: those before its list of squashed commits, and that list's."""
    lines = [line for line in message.strip().splitlines() if not _is_formal(line.strip())]
    while lines and not lines[0].strip():
        del lines[0]
    lines[:1] = [_PULL_AT_END.sub("", line) for line in lines[:1]]
    first = next((n for n, line in enumerate(lines) if n and line.startswith("* ") and not lines[n - 1]), len(lines))
    squashed = [_PULL_AT_END.sub("", line) for line in lines[first:]]
    return [line.rstrip() for line in lines[:first]], [line.rstrip() for line in squashed]


def _is_formal(line: str) -> bool:
    return any(pattern.search(line) for pattern in (_TRAILER, _MERGE, _LINKS_ALONE) if line)


@dataclass(frozen=True)
class _Block:
    """A paragraph, a title or an entry of a list; `apart`: an empty line stands before it."""

    lines: tuple[str, ...]
    apart: bool

    @property
    def text(self) -> str:
        return ("\n\n" if self.apart else "\n") + "\n".join(self.lines)


def _blocks(lines: Sequence[str]) -> Iterator[_Block]:
    """The parts of a text that may be left out alone; entries that tell only of the work are."""
    block: list[str] = []
    apart = True
    for number, line in enumerate([*lines, ""]):
        empty = not line.strip()
        if block and (empty or number == 1 or _ENTRY.match(line)):
            if not (_ENTRY.match(block[0]) and says_work(block[0])):
                yield _Block(tuple(block), apart)
            block, apart = [], False
        if empty:
            apart = True
        else:
            block.append(line)


def _is_told(line: str, told: set[str]) -> bool:
    """Whether a paragraph of this first line was told before: a squash repeats the titles of what it squashes."""
    key = line.strip().lstrip("*-+ ").rstrip(".").casefold()
    known = key in told
    told.add(key)
    return known and bool(key)


def _fix_lines(patch: str) -> set[str]:
    """The lines that the fix adds, but for those of prose: a news entry tells of the problem, not of its solution."""
    lines = {line for path, added in added_lines(patch).items() if not path.endswith(_PROSE) for line in added}
    return {line for line in lines if re.search(r"\w", line)}


def _shows_fix(line: str, fix: set[str]) -> bool:
    bare = line.strip()
    return bare in fix or bare.strip("*-+>` ") in fix or any(len(one) > _QUOTED and one in line for one in fix)


def _function(failures: Mapping[str, TestFailure], patch: str) -> str:
    """The name that the fault goes by: a function or class that the fix changes, best one that the failures show."""
    headers = [header for path, found in hunk_headers(patch).items() if path.endswith(".py") for header in found]
    names = [match[1] for header in headers if (match := re.match(r"\s*(?:async\s+)?(?:def|class)\s+(\w+)", header))]
    shown = {frame.function for failure in failures.values() for frame in failure.frames}
    shown |= {word for failure in failures.values() for word in re.findall(r"\w+", failure.statement)}
    files = [PurePosixPath(path).stem for path in added_lines(patch) if path.endswith(".py")]
    return next((name for name in names if name in shown), [*names, *files, "it"][0])


def _hidden_names(test_ids: Sequence[str]) -> set[str]:
    """The functions that test ids name, and the files and modules that they lie in."""
    files = {test_id.split("::")[0] for test_id in test_ids}
    functions = {test_id.partition("[")[0].split("::")[-1] for test_id in test_ids if "::" in test_id}
    return files | functions | {file.removesuffix(".py").replace("/", ".") for file in files}
