"""What a repository says its tests need."""

import pytest

from turnwise.tasks.checkout.needs import (
    Needs,
    asks_git_for_its_version,
    builds_with_setuptools_alone,
    names,
    needs_of_tests,
    project,
)

METADATA = """\
Metadata-Version: 2.1
Name: tiny
Version: 1.0
Provides-Extra: test
Provides-Extra: docs
Requires-Dist: attrs
Requires-Dist: pytest>=6; extra == "test"
Requires-Dist: nose; python_version < "3" and extra == "test"
Requires-Dist: sphinx; extra == "docs"
"""


@pytest.fixture
def installed(tmp_path):
    info = tmp_path / "site-packages" / "tiny-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(METADATA)
    (info / "direct_url.json").write_text('{"dir_info": {"editable": true}, "url": "file:///testbed"}')
    return project(tmp_path / "site-packages")


@pytest.fixture
def root(tmp_path):
    (tmp_path / "root" / "requirements").mkdir(parents=True)
    return tmp_path / "root"


def test_extras_groups_and_files_for_tests_come_together(root, installed):
    (root / "pyproject.toml").write_text('[dependency-groups]\ntests = ["hypothesis", {include-group = "x"}]\n')
    for name in (
        "test-requirements.txt",
        "requirements/tests.txt",
        "requirements/test-docs.txt",
        "dev-requirements.txt",
    ):
        (root / name).write_text("")
    assert needs_of_tests(root, installed) == Needs(
        ("requirements/tests.txt", "test-requirements.txt"), ("pytest>=6", "hypothesis")
    )


def test_else_toxs_and_else_developments(root):
    (root / "dev-requirements.txt").write_text("")
    assert needs_of_tests(root, None) == Needs(("dev-requirements.txt",))
    (root / "tox.ini").write_text("[testenv]\ndeps =\n    mock\n    py27: old\n    -rother.txt\n    pytest>=6\n")
    assert needs_of_tests(root, None) == Needs((), ("mock", "pytest>=6"))


@pytest.mark.parametrize("text", ["[", "[dependency-groups]\ntest = []\n", ""])
def test_files_that_tell_nothing_are_no_error(root, text):
    (root / "pyproject.toml").write_text(text)
    (root / "tox.ini").write_text(text)
    assert needs_of_tests(root, None) == Needs()


def test_builds_that_need_more_than_setuptools_are_told_apart(root):
    assert builds_with_setuptools_alone(root)
    (root / "pyproject.toml").write_text('[build-system]\nrequires = ["setuptools~=62.6", "wheel"]\n')
    assert builds_with_setuptools_alone(root)
    (root / "pyproject.toml").write_text('[build-system]\nrequires = ["setuptools", "setuptools_scm"]\n')
    assert not builds_with_setuptools_alone(root)


def test_a_projects_name_is_read_where_its_files_say_it(root):
    (root / "setup.py").write_text("setup(name=compute())")
    assert names(root) == []
    (root / "setup.cfg").write_text("[metadata]\nname = my.tiny\n")
    assert names(root) == ["my.tiny"]
    (root / "setup.cfg").write_text("[metadata]\nname = attr: tiny.name\n")
    (root / "pyproject.toml").write_text('[project]\nname = "tiny"\n')
    assert names(root) == ["tiny"]


@pytest.mark.parametrize(
    ("file", "text", "asks"),
    [
        ("setup.py", "setup(use_scm_version=True)", True),
        ("setup.cfg", "[options]\nsetup_requires = setuptools-scm", True),
        ("pyproject.toml", '[build-system]\nrequires = ["hatchling", "hatch-vcs"]', True),
        ("setup.py", "setup(setup_requires=['pbr'], pbr=True)", True),
        ("setup.py", "setup(name='tiny', version='1.0')", False),
        ("README.md", "We used setuptools_scm once.", False),
    ],
)
def test_only_some_builds_ask_git_for_their_version(root, file, text, asks):
    (root / file).write_text(text)
    assert asks_git_for_its_version(root) is asks
