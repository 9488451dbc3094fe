"""The table of facts: every entry is whole, in order, and of swebench's own parsers."""

import re
import tomllib
from itertools import pairwise
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

import turnwise.tasks
from turnwise.tasks.formats.facts import dataset_of, facts_of

PATH = Path(turnwise.tasks.__file__).parent / "data" / "repositories.toml"
ENTRIES = tomllib.loads(PATH.read_text(encoding="utf-8"))["repository"]
SWE_BENCH = {entry["name"] for entry in ENTRIES if "dataset" not in entry}


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry["name"])
def test_an_entry_is_whole(entry):
    versions = [since["version"] for since in entry.get("since", ())]
    assert all(Version(a) < Version(b) for a, b in pairwise(versions))
    for version in versions or ["1.0"]:
        facts = facts_of(entry["name"].upper(), version)
        assert re.fullmatch(r"3\.\d+", facts.installation.python)
        assert facts.installation.install
        assert facts.targets in ("path", "module", "mypy-case")
        assert all(Requirement(package) for package in facts.installation.pip_packages)


def test_the_parsers_are_swebenchs_own():
    python = pytest.importorskip("swebench.harness.log_parsers.python")
    for name in SWE_BENCH:
        assert getattr(python, facts_of(name, "3.0").log_parser) is python.MAP_REPO_TO_PARSER_PY[name]


def test_every_repository_of_swe_bench_is_there():
    assert len(SWE_BENCH) == 18
    assert {"pytest-dev/pytest", "sphinx-doc/sphinx", "pallets/flask", "pylint-dev/pylint"} <= SWE_BENCH
    assert sum(dataset_of(entry["name"]) == "swe-gym" for entry in ENTRIES) == 11
    assert dataset_of("some/lib") is None
    assert facts_of("some/lib", "") is None


@pytest.mark.parametrize(
    ("repo", "version", "python"),
    [
        ("django/django", "1.2", "3.6"),  # before the first entry
        ("django/django", "2.2", "3.6"),
        ("django/django", "4.0", "3.8"),
        ("django/django", "4.2", "3.9"),
        ("django/django", "6.0", "3.11"),  # after the last
        ("astropy/astropy", "v5.3", "3.10"),
        ("pydicom/pydicom", "1.10", "3.8"),  # 1.10 comes after 1.4
        ("sympy/sympy", "1.13", "3.9"),
    ],
)
def test_an_entry_holds_up_to_the_next(repo, version, python):
    assert facts_of(repo, version).installation.python == python
