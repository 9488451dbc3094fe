"""The repository that sandboxes start from: the base commit under its own id, and no other history."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from turnwise.errors import TaskError
from turnwise.tasks.checkout.repositories import History
from turnwise.tasks.repository import git, ignore, start_repository


def check_out(history: History, commit: str, root: Path) -> list[str]:
    """Make `root` a repository of this one commit, checked out, as a clone of depth 1 would be, without a remote.

    The commit keeps its id, because the commit object is the real one; `.git/shallow` ends the history there. Files
    come byte by byte, whatever a .gitattributes wants; submodules stay empty folders. Returns the paths of files that
    the history lacks, which are left out.
    """
    pack, missing = history.pack(commit)
    _begin(root, pack, commit)
    (root / ".git" / "shallow").write_text(f"{commit}\n", encoding="utf-8")
    git(root, "read-tree", commit)
    staged = [line.split("\t", 1) for line in git(root, "ls-files", "--stage", "-z").split("\0") if line]
    lost = [path for entry, path in staged if entry.split()[1] in missing]
    names = "\0".join(lost).encode("utf-8", "surrogateescape")
    git(root, "update-index", "--force-remove", "-z", "--stdin", stdin=names)
    git(root, "checkout-index", "--all", "--quiet", "--index")
    return lost


def apply_setup(root: Path, setup_patch: str, instance_id: str) -> None:
    """Bring the bug that a row comes with as a patch. Raises TaskError naming the row when it does not fit."""
    if setup_patch.strip():
        try:
            git(root, "apply", "--index", "--whitespace=nowarn", "-", stdin=setup_patch.encode())
        except TaskError as error:
            raise TaskError(f"{instance_id}: its setup patch does not apply to the base commit: {error}") from error


@contextmanager
def version_told(root: Path, version: str) -> Iterator[None]:
    """A tag for the time of the installation, by which builds that ask git for a version (versioneer) find one."""
    tag = root / ".git" / "refs" / "tags" / f"v{version}"
    if version:
        tag.parent.mkdir(exist_ok=True)
        tag.write_text(git(root, "rev-parse", "HEAD"), encoding="utf-8")
    try:
        yield
    finally:
        shutil.rmtree(tag.parent, ignore_errors=True)


def settle(root: Path, base_commit: str) -> None:
    """Make what lies in the working tree now the base: nothing of it shows up in `git status` or in a diff.

    Untracked files (what the installation made) are ignored from now on. Where tracked files differ from the base
    commit (a setup patch, edits that the row's installation asks for), the repository is begun anew with one commit of
    our own, so that the tree before those changes is nowhere in it; `refs/replace` makes the base commit's id mean that
    commit to whatever asks git for it.
    """
    made = git(root, "ls-files", "--others", "--directory", "--no-empty-directory", "-z").split("\0")
    if git(root, "diff", "--name-only", "--no-ext-diff", base_commit, "--"):
        _begin_anew(root, base_commit)
    ignore(root, filter(None, made))
    git(root, "update-index", "-q", "--refresh")


def _begin_anew(root: Path, base_commit: str) -> None:
    git(root, "add", "-u")
    commit = git(root, "commit-tree", "-m", "Base", git(root, "write-tree").strip()).strip()
    pack, _ = History(root, base_commit).pack(commit)
    shutil.rmtree(root / ".git")
    _begin(root, pack, commit)
    replaced = root / ".git" / "refs" / "replace" / base_commit
    replaced.parent.mkdir(parents=True)
    replaced.write_text(f"{commit}\n", encoding="utf-8")
    git(root, "read-tree", commit)


def _begin(root: Path, pack: bytes, commit: str) -> None:
    start_repository(root)
    git(root, "index-pack", "--stdin", stdin=pack)
    (root / ".git" / "refs" / "heads" / "main").write_text(f"{commit}\n", encoding="utf-8")
