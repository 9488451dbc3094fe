"""The root of a task: exactly the base commit's files under its id, nothing of the past, nothing of the future."""

import os
import subprocess
from pathlib import Path

import pytest

from turnwise.errors import TaskError
from turnwise.files import readable
from turnwise.tasks.checkout.repositories import History
from turnwise.tasks.checkout.root import apply_setup, check_out, settle, version_told

SETUP_PATCH = """\
--- a/news
+++ b/news
@@ -1 +1 @@
-the base
+the bug
--- /dev/null
+++ b/src/tiny/extra.py
@@ -0,0 +1 @@
+BUG = True
"""


@pytest.fixture
def root(upstream, tmp_path):
    root = tmp_path / "root"
    root.mkdir()
    assert check_out(History(upstream.folder, "acme__tiny-7"), upstream.base, root) == []
    return root


def objects(git, root):
    return git(root, "cat-file", "--batch-check", "--batch-all-objects", "--unordered").splitlines()


def test_the_files_are_the_commits_byte_for_byte(git, root, upstream):
    listed = git(root, "ls-tree", "-r", "--name-only", upstream.base).splitlines()
    assert listed == sorted(str(p.relative_to(root)) for p in root.rglob("*") if p.is_file() and ".git" not in p.parts)
    # Neither export-ignore nor export-subst nor an end of line is honoured.
    assert (root / "secret.txt").read_bytes() == b"part of the tree\n"
    assert (root / "subst.txt").read_bytes() == b"$Format:%H$\n"
    assert os.access(root / "run.sh", os.X_OK)
    assert (root / "link").readlink() == Path("run.sh")
    assert git(root, "status", "--porcelain") == ""


def test_the_history_is_one_commit_under_its_own_id(git, root, upstream):
    assert git(root, "rev-parse", "HEAD") == upstream.base
    assert git(root, "log", "--all", "--format=%H") == upstream.base
    assert git(root, "fsck", "--full", "--strict") == ""


def test_nothing_tells_of_the_past_or_the_future(git, root, upstream):
    git(root, "fsck")
    assert [line for line in git(root, "for-each-ref").splitlines() if "refs/heads/main" not in line] == []
    kinds = [line.split()[1] for line in objects(git, root)]
    assert kinds.count("commit") == 1
    for commit in (upstream.past, upstream.future):
        assert commit not in "".join(objects(git, root))
    everything = git(root, "cat-file", "--batch", "--batch-all-objects")
    assert "the base" in everything
    assert "mended" not in everything
    assert "the past" not in everything
    assert git(root, "remote") == ""
    told = [path for path in (root / ".git").rglob("*") if path.is_file() and b"example.org" in path.read_bytes()]
    assert told == []
    assert not any((root / ".git" / name).exists() for name in ("FETCH_HEAD", "ORIG_HEAD", "packed-refs", "logs"))


def test_the_agent_can_commit_and_look_back(git, root, upstream):
    settle(root, upstream.base)
    (root / "news").write_text("changed\n")
    git(root, "commit", "-q", "-am", "Change")
    assert git(root, "diff", "--name-only", upstream.base) == "news"
    assert git(root, "gc", "-q") == ""
    git(root, "checkout", upstream.base, "--", "news")
    assert (root / "news").read_text() == "the base\n"


def test_what_the_installation_leaves_is_no_change(git, root, upstream):
    (root / "src" / "tiny.egg-info").mkdir()
    (root / "src" / "tiny.egg-info" / "PKG-INFO").write_text("")
    (root / "odd [name]!.txt").write_text("")
    settle(root, upstream.base)
    assert git(root, "status", "--porcelain") == ""
    assert git(root, "rev-parse", "HEAD") == upstream.base
    (root / "new.py").write_text("")
    (root / "odd n!.txt").write_text("")
    assert git(root, "status", "--porcelain").split("\n") == ["?? new.py", '?? "odd n!.txt"']


def test_a_setup_patch_is_the_base_and_the_clean_files_are_gone(git, root, upstream):
    apply_setup(root, SETUP_PATCH, "acme__tiny-7")
    settle(root, upstream.base)
    assert git(root, "status", "--porcelain") == ""
    assert git(root, "log", "--all", "--format=%s") == "Base"
    assert git(root, "diff", upstream.base) == ""
    assert git(root, "show", f"{upstream.base}:news") == "the bug"
    assert "the base" not in git(root, "cat-file", "--batch", "--batch-all-objects")
    (root / "src" / "tiny" / "extra.py").unlink()
    git(root, "checkout", upstream.base, "--", "src/tiny/extra.py")
    assert (root / "src" / "tiny" / "extra.py").read_text() == "BUG = True\n"


def test_a_setup_patch_that_does_not_fit_is_named(root):
    with pytest.raises(TaskError, match="acme__tiny-7: its setup patch does not apply"):
        apply_setup(root, SETUP_PATCH.replace("the base", "no such line"), "acme__tiny-7")


def test_edits_of_tracked_files_by_the_installation_are_the_base(git, root, upstream):
    (root / "tox.ini").write_text("[testenv]\ncommands = pytest -rA\n")
    (root / "run.sh").unlink()
    settle(root, upstream.base)
    assert git(root, "status", "--porcelain") == ""
    assert git(root, "diff", upstream.base) == ""
    assert git(root, "show", f"{upstream.base}:tox.ini").endswith("-rA")


def test_files_that_the_repository_lacks_are_told(git, upstream, tmp_path):
    git(tmp_path, "clone", "-q", "--no-local", str(upstream.folder), "partial")
    git(tmp_path / "partial", "checkout", "-q", upstream.base)
    blob = git(tmp_path / "partial", "rev-parse", "HEAD:news")
    pack = next((tmp_path / "partial" / ".git" / "objects" / "pack").glob("*.pack"))
    loose = pack.rename(tmp_path / "pack").read_bytes()
    subprocess.run(["git", "unpack-objects", "-q"], cwd=tmp_path / "partial", input=loose, check=True)
    (tmp_path / "partial" / ".git" / "objects" / blob[:2] / blob[2:]).unlink()
    root = tmp_path / "root"
    root.mkdir()
    assert check_out(History(tmp_path / "partial", "x"), upstream.base, root) == ["news"]
    settle(root, upstream.base)
    assert git(root, "status", "--porcelain") == ""
    assert "a - b" in (root / "src/tiny/__init__.py").read_text()


def test_the_version_is_told_by_a_tag_only_while_it_is_installed(git, root):
    with version_told(root, "1.1.dev1"):
        assert git(root, "describe", "--tags") == "v1.1.dev1"
    assert git(root, "tag") == ""


ODD = [b"caf\xe9.txt", b"two\nlines.txt", b"two\r\nlines", b'a "quoted" name', b"tab\there", b"needs/\xff.txt"]


@pytest.fixture
def odd(upstream, git, tmp_path):
    """A clone whose last commit has files of these names, and one of them lost its content: (folder, commit)."""
    folder = tmp_path / "odd"
    git(upstream.repos, "clone", "-q", str(upstream.folder), str(folder))
    for name in ODD:
        (folder / os.fsdecode(name)).write_bytes(b"content of " + name + b"\n")
    git(folder, "add", "-A")
    git(folder, "commit", "-q", "-m", "Odd")
    return folder, git(folder, "rev-parse", "HEAD")


def files_below(root):
    command = ["find", ".", "-path", "./.git", "-prune", "-o", "-type", "f", "-print0"]
    listed = subprocess.run(command, cwd=root, check=True, capture_output=True)
    return {name.removeprefix(b"./") for name in listed.stdout.split(b"\0") if name}


def test_names_that_are_no_utf8_or_hold_line_ends_are_checked_out(git, odd, tmp_path):
    folder, commit = odd
    (root := tmp_path / "root").mkdir()
    lost_id = git(folder, "rev-parse", f"HEAD:{os.fsdecode(ODD[0])}")
    (folder / ".git" / "objects" / lost_id[:2] / lost_id[2:]).unlink()
    lost = check_out(History(folder, "acme__tiny-7"), commit, root)
    assert [os.fsencode(name) for name in lost] == [ODD[0]]
    assert readable(lost[0]) == "caf\\xe9.txt"
    assert files_below(root) >= {*ODD[1:]}
    assert ODD[0] not in files_below(root)


def test_what_the_installation_made_is_ignored_under_any_name(git, root):
    for name in ODD[:-1]:
        (root / os.fsdecode(name)).write_text("made\n")
    settle(root, git(root, "rev-parse", "HEAD"))
    assert git(root, "status", "--porcelain") == ""
    (root / "lines.txt").write_text("by the agent\n")
    assert git(root, "status", "--porcelain") == "?? lines.txt"


def test_settings_files_are_exported_beside_names_that_are_no_utf8(odd, tmp_path):
    folder, commit = odd
    History(folder, "acme__tiny-7").export(commit, ["needs/tests.txt"], tmp_path / "settings")
    assert {b"needs/tests.txt", b"needs/\xff.txt"} <= files_below(tmp_path / "settings")
