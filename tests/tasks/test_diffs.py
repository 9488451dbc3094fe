"""Diffs as git writes and applies them: sizes, files that remain, and the way back."""

import random
import subprocess

import pytest

from turnwise.errors import TaskError
from turnwise.tasks.diffs import PatchSize, added_file, patch_size, remaining_files, reversed_patch

BEFORE = {
    "kept.py": "a\nb\nc\nd\ne\nf\ng\nh\n",
    "gone.py": "old\n",
    "bare.txt": "no newline",
    "moved.py": "".join(f"line {n}\n" for n in range(20)),
    "run.sh": "#!/bin/sh\n",
    "with space.txt": "one\ntwo\n",
    "crlf.txt": "one\r\ntwo\r\n",
}
AFTER = {
    "kept.py": "A\nb\nc\nd\ne\nf\nnew\nmore\ng\n",
    "fresh/new.py": "first\nsecond\n",
    "empty.py": "",
    "bare.txt": "no newline still",
    "renamed.py": "".join(f"line {n}\n" for n in range(19)) + "line nineteen\n",
    "run.sh": "#!/bin/sh\n",
    "with space.txt": "one\ntwo\nthree",
    "crlf.txt": "one\r\nTWO\r\n",
}


def _git(folder, *arguments, text=None):
    command = ["git", "-c", "user.name=t", "-c", "user.email=t@t", "-c", "core.autocrlf=false", *arguments]
    done = subprocess.run(command, cwd=folder, input=text and text.encode(), capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout.decode()


def _write(folder, files):
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(text.encode())


def _tree(folder):
    return _git(folder, "ls-files", "--stage")


@pytest.fixture
def repository(tmp_path):
    """A repository whose work tree holds AFTER while its one commit holds BEFORE; both staged as git sees them."""
    _git(tmp_path, "init", "-q")
    _write(tmp_path, BEFORE)
    _git(tmp_path, "add", ".")
    _git(tmp_path, "commit", "-qm", "before")
    for name in BEFORE:
        (tmp_path / name).unlink()
    _write(tmp_path, AFTER)
    (tmp_path / "run.sh").chmod(0o755)
    _git(tmp_path, "add", "-A")
    return tmp_path


@pytest.mark.parametrize("options", [(), ("-M",), ("--no-renames",), ("-U0",), ("-U1", "-M")])
def test_a_reversed_patch_undoes_what_git_did(repository, options):
    zero = ("--unidiff-zero",) if "-U0" in options else ()
    patch = _git(repository, "diff", "--cached", *options)
    after = _tree(repository)
    _git(repository, "apply", "--index", *zero, text=reversed_patch(patch))
    assert _git(repository, "diff", "--cached") == ""
    _git(repository, "apply", "--index", *zero, text=reversed_patch(reversed_patch(patch)))
    assert _tree(repository) == after


def test_random_edits_are_undone(tmp_path):
    """Short files of few different lines, so that hunks touch, overlap and end at bare last lines."""
    _git(tmp_path, "init", "-q")
    dice = random.Random(0)

    def text():
        return "\n".join(dice.choices("abc", k=dice.randrange(1, 14))) + dice.choice(["", "\n"])

    for case in range(25):
        before, after = text(), text()
        (tmp_path / "file").write_text(before)
        _git(tmp_path, "add", "file")
        (tmp_path / "file").write_text(after)
        patch = _git(tmp_path, "diff", f"-U{case % 4}")
        if patch:
            _git(tmp_path, "apply", "--unidiff-zero", text=reversed_patch(patch))
        assert (tmp_path / "file").read_text() == before


def test_sizes_and_remaining_files(repository):
    patch = _git(repository, "diff", "--cached", "-M")
    stat = _git(repository, "diff", "--cached", "-M", "--numstat").splitlines()
    lines = sum(int(number) for line in stat for number in line.split("\t")[:2])
    assert patch_size(patch) == PatchSize(files=len(stat), lines=lines)
    assert set(remaining_files(patch)) == set(AFTER)


@pytest.mark.parametrize("text", ["one\ntwo\n", "one\ntwo", "one", "\n", ""])
def test_an_added_file_is_what_was_given(tmp_path, text):
    _git(tmp_path, "init", "-q")
    _git(tmp_path, "apply", text=added_file("tests/test_a.py", text))
    assert (tmp_path / "tests" / "test_a.py").read_text() == text


@pytest.mark.parametrize("text", ["@@ -1 +1 @@\n-a\n+b\n", "--- a/x\n+++ b/x\n@@ -1,3 +1 @@\n-a\n+b\n"])
def test_what_is_no_diff_is_refused(text):
    with pytest.raises(TaskError, match="is no unified diff"):
        patch_size(text)


@pytest.mark.parametrize(
    "header",
    ["Binary files a/x and b/x differ\n", "similarity index 100%\ncopy from y\ncopy to x\n"],
)
def test_what_text_cannot_undo_is_refused(header):
    with pytest.raises(TaskError, match="cannot be undone"):
        reversed_patch(f"diff --git a/x b/x\n{header}")
