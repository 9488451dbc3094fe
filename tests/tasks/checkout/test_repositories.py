"""Where a task's history is found, that it is only read, and what is said when it is not there."""

import shutil
from dataclasses import replace

import pytest

from turnwise.errors import TaskError
from turnwise.tasks.checkout.repositories import find_history, version_of


@pytest.fixture
def bare(git, upstream, tmp_path):
    """A folder that has the repository as a bare mirror."""
    (tmp_path / "mirrors").mkdir()
    git(tmp_path / "mirrors", "clone", "-q", "--mirror", str(upstream.folder), "acme__tiny.git")
    return tmp_path / "mirrors"


def everything(folder):
    return {path: (path.lstat().st_mtime_ns, path.lstat().st_size) for path in folder.rglob("*")}


def test_a_clone_and_a_bare_mirror_are_found(upstream, bare, tmp_path):
    task = upstream.task()
    assert find_history(task, upstream.repos, tmp_path).folder == upstream.folder
    assert find_history(task, bare, tmp_path).folder == bare / "acme__tiny.git"


def test_a_known_repository_is_taken_wherever_it_lies(upstream, bare, tmp_path):
    known = bare / "acme__tiny.git"
    assert find_history(upstream.task(), upstream.repos, tmp_path, known=known).folder == known
    with pytest.raises(TaskError, match="has no commit"):
        find_history(upstream.task(), upstream.repos, tmp_path, known=tmp_path)


def test_the_users_repository_is_only_read(upstream, tmp_path):
    before = everything(upstream.folder)
    history = find_history(upstream.task(), upstream.repos, tmp_path)
    history.pack(upstream.base)
    assert history.version_at(upstream.base) == "1.1.dev1"
    assert history.committed_on(upstream.base).isoformat() == "2023-05-01"
    assert everything(upstream.folder) == before


def test_a_repository_without_the_commit_is_named_with_row_and_commit(upstream, tmp_path):
    task = replace(upstream.task(), base_commit="c0ffee" + "0" * 34)
    with pytest.raises(TaskError) as caught:
        find_history(task, upstream.repos, tmp_path)
    assert all(word in str(caught.value) for word in ("acme__tiny-7", "acme/tiny", "c0ffee", str(upstream.folder)))


def test_a_commit_is_found_by_whatever_names_it(git, upstream, tmp_path):
    history = find_history(replace(upstream.task(), base_commit="HEAD"), upstream.repos, tmp_path)
    named = {"HEAD": upstream.future, "release~1": upstream.base, "v1.0": upstream.past}
    named[upstream.base[:7]] = upstream.base
    assert {name: history.commit(name) for name in named} == named
    assert [history.commit(name) for name in ("nowhere", "--all", "HEAD:news", "0" * 40)] == [""] * 4


def test_a_folder_inside_another_repository_is_not_taken_for_that_one(git, upstream, tmp_path):
    git(tmp_path, "clone", "-q", str(upstream.folder), "around")
    (tmp_path / "around" / "acme__tiny").mkdir()
    with pytest.raises(TaskError, match="has no commit"):
        find_history(upstream.task(), tmp_path / "around", tmp_path)


def test_what_is_not_there_is_cloned_once_and_fetched_when_it_grew(git, upstream, bare, tmp_path):
    host = tmp_path / "host"
    (host / "acme").mkdir(parents=True)
    (bare / "acme__tiny.git").rename(host / "acme" / "tiny")
    first = find_history(upstream.task(), tmp_path / "empty", tmp_path / "cache", f"file://{host}")
    git(
        host / "acme" / "tiny", "update-ref", "refs/heads/new", git_commit(git, host / "acme" / "tiny", upstream.future)
    )
    grown = replace(upstream.task(), base_commit=git(host / "acme" / "tiny", "rev-parse", "new"))
    second = find_history(grown, None, tmp_path / "cache", f"file://{host}")
    assert first == second
    shutil.rmtree(host)
    assert find_history(upstream.task(), None, tmp_path / "cache", f"file://{host}") == first


def git_commit(git, folder, parent):
    return git(folder, "commit-tree", "-p", parent, "-m", "More", f"{parent}^{{tree}}")


def test_what_cannot_be_cloned_is_named_with_what_to_do(upstream, tmp_path):
    with pytest.raises(TaskError, match=r"acme__tiny-7: repository acme/tiny .*cannot be cloned.*give it as --repos"):
        find_history(upstream.task(), None, tmp_path, f"file://{tmp_path}/nowhere")
    assert not list((tmp_path / "repositories").glob("acme*"))


@pytest.mark.parametrize(
    ("described", "version"),
    [
        ("6.2.0-64-gabc1234", "6.2.1.dev64"),
        ("v2.0.1-0-gabc1234", "2.0.1"),
        ("sympy-1.6-340-gff5968d44b", "1.7.dev340"),
        ("8.1.0.dev0-5-gabc1234", "8.1.0.dev5"),
        ("v1.2rc1-3-gabc1234", "1.2.dev3"),
        ("release_3_1-2-gabc1234", "3.2.dev2"),
        ("nightly-2-gabc1234", ""),
        ("", ""),
    ],
)
def test_a_description_becomes_a_version(described, version):
    assert version_of(described) == version
