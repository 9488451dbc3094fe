"""The commits of a repository as values: what they say, what each brings onto its line, and which files it changes."""

import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from turnwise.errors import InputError
from turnwise.tasks.checkout.repositories import History, run_git

_FIELDS = ("%H", "%P", "%ct", "%at", "%B")
_MARK = "\x01"  # stands before a commit's id where its files follow; no status begins so
_LOOK_TIMEOUT_S = 60.0


@dataclass(frozen=True)
class Commit:
    """One commit; times are seconds since 1970. A parent that a shallow clone ends before is none.

    >>> Commit("9f8a…", ("e8f7…",), 1723734926, 1723734926, "Fix the sign (#12)\\n").title
    'Fix the sign (#12)'
    """

    id: str
    parents: tuple[str, ...]
    committed_s: int
    authored_s: int
    message: str

    @property
    def title(self) -> str:
        """The first line of the message; empty where there is none."""
        return (self.message.strip().splitlines() or [""])[0].strip()


@dataclass(frozen=True)
class Change:
    """What one commit brought onto the line: `merged` are the commits that it merges, oldest first, and `files` the
    paths that differ from its first parent, with git's letter for how ("A", "M", "D", "T")."""

    commit: Commit
    merged: tuple[Commit, ...]
    files: Mapping[str, str]


def open_history(path: Path, ref: str) -> tuple[History, str]:
    """The repository at `path` and the commit that `ref` names. Raises InputError saying what to give instead."""
    if not path.is_dir():
        raise InputError(f"{path}: no such folder; give a clone, a bare repository or a mirror")
    folder = path.absolute()
    if _looked(folder, "rev-parse", "--git-dir") is None:
        raise InputError(f"{path}: is no git repository; give the top folder of a clone, a bare repository or a mirror")
    commit = _looked(folder, "rev-parse", "--verify", "--quiet", "--end-of-options", f"{ref}^{{commit}}")
    if commit is None:
        names = (_looked(folder, "for-each-ref", "--count=5", "--format=%(refname:short)", "refs/heads") or "").split()
        if not names:
            raise InputError(f"{path}: has no commit that {ref!r} names, nor any branch; fetch its history first")
        raise InputError(f"{path}: has no commit that {ref!r} names; give --ref BRANCH, such as {', '.join(names)}")
    return History(folder, path.name), commit


def read_changes(history: History, commits: Mapping[str, Commit], ref: str) -> list[Change]:
    """The first-parent line of `ref`, newest first, each commit against its first parent; roots are left out.

    `commits` are all that `ref` reaches. Only trees are looked at, so files that a partial clone lacks do no harm.
    Raises TaskError where git fails.
    """
    line = list(_first_parents(commits, ref))
    merged = _merged(commits, line)
    files = _changed_files(history, ref)
    changed = [commit for commit in line if commit.parents and commit.parents[0] in commits]
    return [Change(commit, merged[commit.id], files.get(commit.id, {})) for commit in changed]


def read_commits(history: History, ref: str) -> dict[str, Commit]:
    """All commits that `ref` reaches, by id, as git lists them: newest first."""
    listed = history.git("log", "-z", "--encoding=UTF-8", f"--format={'%x00'.join(_FIELDS)}", ref, "--")
    fields = listed.decode(errors="replace").split("\0")
    rows = (fields[start : start + len(_FIELDS)] for start in range(0, len(fields) - len(_FIELDS) + 1, len(_FIELDS)))
    return {row[0]: Commit(row[0], tuple(row[1].split()), int(row[2]), int(row[3]), row[4]) for row in rows}


def read_patch(history: History, change: Change, paths: Sequence[str]) -> str | None:
    """The change of these files as text that `git apply` takes; None where it is no UTF-8. A moved file goes and comes.

    Raises TaskError where the repository lacks a file's content.
    """
    options = ("--binary", "--full-index", "--no-renames", "--no-color", "--no-ext-diff", "--no-textconv")
    sides = ("--src-prefix=a/", "--dst-prefix=b/", "-U3", "--submodule=short", change.commit.parents[0])
    places = [f":(top,literal){path}" for path in paths]
    patch = history.git("diff", *options, *sides, change.commit.id, "--", *places)
    try:
        return patch.decode()
    except UnicodeDecodeError:
        return None


def iso(seconds: int) -> str:
    """A time as rows have it.

    >>> iso(0)
    '1970-01-01T00:00:00Z'
    """
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _looked(folder: Path, *arguments: str) -> str | None:
    try:
        done = run_git(folder, arguments, _LOOK_TIMEOUT_S)
    except subprocess.TimeoutExpired as error:
        raise InputError(f"{folder}: git {arguments[0]} took over {_LOOK_TIMEOUT_S:g} s") from error
    return done.stdout.decode(errors="replace").strip() if done.returncode == 0 else None


def _first_parents(commits: Mapping[str, Commit], tip: str) -> Iterator[Commit]:
    commit = commits.get(tip)
    while commit is not None:
        yield commit
        commit = commits.get(commit.parents[0]) if commit.parents else None


def _merged(commits: Mapping[str, Commit], line: Sequence[Commit]) -> dict[str, tuple[Commit, ...]]:
    """What each commit of the line merges: what it reaches and its first parent does not, oldest first."""
    seen: set[str] = {commit.id for commit in line}
    merged = {}
    for commit in reversed(line):
        found, left = [], list(commit.parents[1:])
        while left:
            name = left.pop()
            if name not in seen and name in commits:
                seen.add(name)
                found.append(commits[name])
                left += commits[name].parents
        merged[commit.id] = tuple(sorted(found, key=lambda one: one.committed_s))
    return merged


def _changed_files(history: History, ref: str) -> dict[str, dict[str, str]]:
    options = ("--first-parent", "-m", "-z", "--name-status", "--no-renames", f"--format={_MARK}%H")
    files: dict[str, dict[str, str]] = {}
    words = iter(history.git("log", *options, ref, "--").decode(errors="surrogateescape").split("\0"))
    here: dict[str, str] = {}
    for word in words:
        status = word.strip("\n")
        if status.startswith(_MARK):
            here = files.setdefault(status[1:], {})
        elif status:
            here[next(words)] = status
    return files
