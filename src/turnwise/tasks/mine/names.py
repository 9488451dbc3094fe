"""What a mined repository and its tasks are called, as far as the repository itself tells."""

import re
from collections.abc import Iterator
from pathlib import Path

from turnwise.errors import InputError
from turnwise.tasks.checkout.repositories import History, run_git
from turnwise.tasks.mine.commits import Change, Commit

_REMOTE = re.compile(r"^(?:[\w+.-]+://|[^/\s]+:).*?([^/:\s]+)/([^/:\s]+?)(?:\.git)?/?$")
_REPOSITORY = re.compile(r"[A-Za-z0-9_.-]+/[A-Za-z0-9_.-]+")
_PULL = (
    re.compile(r"\AMerge pull request #(\d+)\b"),
    re.compile(r"\A[^\n]*\((?:pull request )?[#!](\d+)\)\s*$", re.MULTILINE),
    re.compile(r"^See merge request \S*!(\d+)\s*$", re.MULTILINE),
)
_LINK = re.compile(r"(?<![\w&/])(?:#|gh-|GH-)(\d+)\b|/(?:issues|pull|merge_requests)/(\d+)\b")
_READ_TIMEOUT_S = 60.0


def repository_name(history: History, given: str | None) -> str:
    """OWNER/NAME: as given, else as the remote `origin` tells, else a folder named OWNER__NAME, else local/<folder>.

    Raises InputError for a given one of another form.
    """
    if given is not None:
        if not _REPOSITORY.fullmatch(given) or not {".", ".."}.isdisjoint(given.split("/")):
            raise InputError(f"--repo {given}: should be OWNER/NAME")
        return given
    told = run_git(history.folder, ("config", "--get", "remote.origin.url"), _READ_TIMEOUT_S).stdout
    remote = _REMOTE.match(told.decode(errors="replace").strip())
    folder = _named_folder(history.folder).removesuffix(".git")
    owner, _, name = folder.partition("__")
    if remote:
        owner, name = remote[1], remote[2]
    return f"{_plain(owner)}/{_plain(name)}" if owner and name else f"local/{_plain(folder) or 'repository'}"


def pull_of(commit: Commit) -> int | None:
    """The number of the pull or merge request that a commit on the main line is.

    >>> pull_of(Commit("", (), 0, 0, "fix: take proxies as names (#632) (#636)\\n\\nCloses #632"))
    636
    """
    for pattern in _PULL:
        if found := pattern.search(commit.message.strip()):
            return int(found[1])
    return None


def links_of(text: str) -> set[int]:
    """The numbers of issues and pull requests that a text links to.

    >>> sorted(links_of("Merge #7, closes https://github.com/a/b/issues/12"))
    [7, 12]
    """
    return {int(short or long) for short, long in _LINK.findall(text)}


def instance_ids(repo: str, changes: list[Change]) -> Iterator[str]:
    """An id for each change, by its pull request or by its commit where it has none, or a newer one has the same."""
    name, seen = repo.replace("/", "__"), set[int]()
    for change in changes:
        pull = pull_of(change.commit)
        taken = pull is None or pull in seen
        seen.update([] if pull is None else [pull])
        yield f"{name}-{change.commit.id[:12] if taken else pull}"


def _named_folder(folder: Path) -> str:
    return folder.parent.name if folder.name == ".git" else folder.name


def _plain(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", name).strip("-.")
