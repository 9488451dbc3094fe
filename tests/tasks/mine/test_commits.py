"""Reading a history: clones of every kind, and what is asked of the user where there is none."""

import os
import shutil
import subprocess

import pytest

from turnwise.errors import InputError, TaskError
from turnwise.tasks.mine.commits import Commit, open_history, read_changes, read_commits, read_patch

LINE = ["docs", "toss", "large", "half", "sign", "untested", "feature"]


def changes_of(folder):
    history, tip = open_history(folder, "HEAD")
    return history, read_changes(history, read_commits(history, tip), tip)


def test_the_main_line_is_read_against_first_parents(past):
    _, changes = changes_of(past.folder)
    assert [change.commit.id for change in changes] == [past.commits[word] for word in LINE]
    sign = changes[LINE.index("sign")]
    assert [commit.title for commit in sign.merged] == ["Turn the sign", "fixup"]
    assert sign.files == {"calc.py": "M", "tests/test_calc.py": "M"}
    assert sign.commit.title == "Merge pull request #7 from dev/sign"
    assert changes[LINE.index("toss")].files == {"toss.py": "A", "tests/test_toss.py": "A"}
    assert all(not change.merged for change in changes if change is not sign)


def test_a_change_is_a_patch_that_its_base_takes(past, tmp_path):
    history, changes = changes_of(past.folder)
    sign = changes[LINE.index("sign")]
    subprocess.run(["git", "clone", "-q", past.folder, tmp_path / "copy"], check=True)
    subprocess.run(["git", "checkout", "-q", sign.commit.parents[0]], cwd=tmp_path / "copy", check=True)
    for path in sign.files:
        patch = read_patch(history, sign, [path])
        subprocess.run(["git", "apply", "--index"], cwd=tmp_path / "copy", input=patch.encode(), check=True)
    tree = subprocess.run(["git", "write-tree"], cwd=tmp_path / "copy", check=True, capture_output=True, text=True)
    assert tree.stdout.strip() == past.git("rev-parse", f"{sign.commit.id}^{{tree}}")


def test_a_bare_or_a_shallow_clone_is_read_as_far_as_it_goes(past, tmp_path):
    for options, count in (["--bare"], 7), (["--depth=3", "--no-single-branch"], 2):
        folder = tmp_path / options[0]
        subprocess.run(["git", "clone", "-q", *options, past.folder.as_uri(), folder], check=True)
        assert len(changes_of(folder)[1]) == count


def test_a_patch_whose_content_is_missing_says_so(past, tmp_path):
    folder = tmp_path / "copy"
    shutil.copytree(past.folder, folder)
    blob = past.git("rev-parse", f"{past.commits['toss']}:toss.py")
    (folder / ".git" / "objects" / blob[:2] / blob[2:]).unlink()
    history, changes = changes_of(folder)
    with pytest.raises(TaskError, match="git diff failed"):
        read_patch(history, changes[1], ["toss.py"])


def test_text_of_another_encoding_is_no_patch(past, tmp_path):
    folder = tmp_path / "copy"
    shutil.copytree(past.folder, folder)
    (folder / "calc.py").write_bytes(b"# caf\xe9\n")
    subprocess.run(["git", "-c", "user.name=x", "-c", "user.email=x", "commit", "-qam", "x"], cwd=folder, check=True)
    history, changes = changes_of(folder)
    assert read_patch(history, changes[0], ["calc.py"]) is None


def test_a_file_whose_name_is_no_utf8_has_a_patch(past, tmp_path):
    folder, name = tmp_path / "copy", os.fsdecode(b'caf\xe9\n".py')
    shutil.copytree(past.folder, folder)
    (folder / name).write_text("x = 1\n")
    subprocess.run(["git", "add", "-A"], cwd=folder, check=True)
    subprocess.run(["git", "-c", "user.name=x", "-c", "user.email=x", "commit", "-qm", "x"], cwd=folder, check=True)
    history, changes = changes_of(folder)
    assert changes[0].files == {name: "A"}
    assert r'+++ "b/caf\351\n\".py"' in read_patch(history, changes[0], [name]).splitlines()


def test_what_is_no_history_is_told_with_what_to_give(past, tmp_path):
    with pytest.raises(InputError, match="nowhere: no such folder"):
        open_history(tmp_path / "nowhere", "HEAD")
    with pytest.raises(InputError, match="is no git repository; give the top folder"):
        open_history(past.folder / "tests", "HEAD")
    with pytest.raises(InputError, match="no commit that 'dev' names; give --ref BRANCH, such as main, sign"):
        open_history(past.folder, "dev")
    subprocess.run(["git", "init", "-q", tmp_path / "empty"], check=True)
    with pytest.raises(InputError, match="nor any branch"):
        open_history(tmp_path / "empty", "HEAD")


def test_a_commit_without_a_message_has_no_title():
    assert Commit("", (), 0, 0, "\n").title == ""
