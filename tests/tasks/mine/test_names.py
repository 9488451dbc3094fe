"""What repositories and tasks are called."""

import re
import subprocess

import pytest

from turnwise.errors import InputError
from turnwise.tasks.checkout.repositories import History
from turnwise.tasks.mine.commits import Change, Commit
from turnwise.tasks.mine.names import instance_ids, links_of, pull_of, repository_name


def commit(message, name="9f8a7b6c5d4e3f2a"):
    return Commit(name, ("0" * 40,), 0, 0, message)


@pytest.mark.parametrize(
    ("message", "pull"),
    [
        ("Merge pull request #12 from a/b\n\nFix it (#3)", 12),
        ("fix: take proxies (#632) (#636)\n\nCloses #632", 636),
        ("Fix it (!77)", 77),
        ("Merged in branch (pull request #5)\n", 5),
        ("Merge branch 'x' into 'main'\n\nFix it\n\nSee merge request group/sub/name!45", 45),
        ("Fix #12 at last", None),
        ("Fix it\n\nlike (#12)", None),
    ],
)
def test_the_number_of_a_pull_request(message, pull):
    assert pull_of(commit(message)) == pull


def test_ids_are_by_pull_request_or_by_commit():
    messages = ["Fix (#4)", "Fix", "Backport (#4)"]
    changes = [Change(commit(text, str(n) * 40), (), {}) for n, text in enumerate(messages)]
    assert list(instance_ids("a/b", changes)) == ["a__b-4", "a__b-111111111111", "a__b-222222222222"]


def test_links_are_found_in_every_form():
    assert links_of("#1, GH-2 (#3) https://x.org/a/b/pull/4 &#5; a#6 /issues/7") == {1, 2, 3, 4, 7}


@pytest.mark.parametrize(
    ("remote", "folder", "name"),
    [
        ("git@example.org:acme/calc.git", "x", "acme/calc"),
        ("https://user:secret@example.org/group/acme/calc", "x", "acme/calc"),
        ("ssh://git@example.org:22/acme/calc.git/", "x", "acme/calc"),
        ("/srv/git/calc.git", "acme__calc.git", "acme/calc"),
        (None, "acme__calc", "acme/calc"),
        (None, "my calc", "local/my-calc"),
    ],
)
def test_a_repository_is_named_by_its_remote_or_its_folder(tmp_path, remote, folder, name):
    subprocess.run(["git", "init", "-q", tmp_path / folder], check=True)
    if remote:
        subprocess.run(["git", "remote", "add", "origin", remote], cwd=tmp_path / folder, check=True)
    assert repository_name(History(tmp_path / folder, "x"), None) == name
    assert repository_name(History(tmp_path / folder, "x"), "other/name") == "other/name"


@pytest.mark.parametrize("name", ["calc", "a/b/c", "../calc", "acme/..", "./calc", "acme/ca lc"])
def test_a_given_name_is_owner_and_name(tmp_path, name):
    with pytest.raises(InputError, match=f"--repo {re.escape(name)}: should be OWNER/NAME"):
        repository_name(History(tmp_path, "x"), name)
