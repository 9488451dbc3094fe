"""What is known of SWE-bench's and SWE-Gym's repositories where their rows are silent: data/repositories.toml."""

import functools
import re
import shlex
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from packaging.version import InvalidVersion, Version

from turnwise.errors import TaskError
from turnwise.tasks.diffs import remaining_files
from turnwise.types import Installation, TestRun

_NOT_TESTS = (".json", ".png", "csv", ".txt", ".md", ".jpg", ".jpeg", ".pkl", ".yml", ".yaml", ".toml")
_INSTALLATION = {field.name for field in fields(Installation)}
_IMAGES = {
    "swe-bench": ("swebench/sweb.eval.x86_64.{}:latest", "_1776_"),
    "swe-gym": ("xingyaoww/sweb.eval.x86_64.{}:latest", "_s_"),
}
_MYPY_CASE = re.compile(r"\[case ([^\]]+)\]")


@dataclass(frozen=True)
class Facts:
    """How one version of a repository is installed and tested. `dataset` is "swe-bench" or "swe-gym".

    >>> facts_of("django/django", "3.1").installation.python
    '3.6'
    """

    dataset: str
    installation: Installation
    command: str
    log_parser: str
    targets: str = "path"

    def image(self, instance_id: str) -> str:
        """The image that the dataset's authors published for an instance."""
        pattern, underscores = _IMAGES[self.dataset]
        return pattern.format(instance_id.replace("__", underscores).lower())

    def test_run(self, test_patch: str) -> TestRun:
        """The official test command on what the test patch brings. Raises TaskError for text that is no diff."""
        return TestRun(f"{self.command} {' '.join(self._named(test_patch))}", self.log_parser)

    def _named(self, test_patch: str) -> list[str]:
        if self.targets == "mypy-case":
            return [f'-k "{" or ".join(_MYPY_CASE.findall(test_patch))}"']
        files = test_files(test_patch)
        if self.targets == "module":
            return [_module(file) for file in files if file.endswith(".py")]
        return [shlex.quote(file) for file in files]


def test_files(test_patch: str) -> tuple[str, ...]:
    """The files of a test patch that a test command is given: those it leaves in place and that are no data.

    Raises TaskError, which names the field, for text that is no unified diff.
    """
    try:
        files = remaining_files(test_patch)
    except TaskError as error:
        raise TaskError(f"field 'test_patch': {error}") from error
    return tuple(file for file in files if not file.endswith(_NOT_TESTS))


def dataset_of(repo: str) -> str | None:
    """The dataset that a repository is of, as far as its facts are known."""
    known = _repositories().get(repo.lower())
    return None if known is None else str(known.get("dataset", "swe-bench"))


def facts_of(repo: str, version: str) -> Facts | None:
    """What is known of a version of a repository; None for a repository that nothing is known of.

    Raises TaskError when the version cannot be read, for what is known differs by version.
    """
    known = _repositories().get(repo.lower())
    if known is None:
        return None
    own = {name: value for name, value in known.items() if name not in ("name", "since")}
    told = own | dict(_newest_until(known.get("since", ()), version, repo))
    installation = {name: _frozen(value) for name, value in told.items() if name in _INSTALLATION}
    others = {name: value for name, value in told.items() if name not in _INSTALLATION | {"version"}}
    return Facts(**({"dataset": "swe-bench"} | others), installation=Installation(**installation))


def _newest_until(entries: Sequence[Mapping[str, Any]], version: str, repo: str) -> Mapping[str, Any]:
    if not entries:
        return {}
    try:
        wanted = Version(version)
    except InvalidVersion as error:
        raise TaskError(f"field 'version': {version!r} does not tell how {repo} is installed") from error
    past = [entry for entry in entries if Version(entry["version"]) <= wanted]
    return past[-1] if past else entries[0]


def _frozen(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _module(file: str) -> str:
    return file.removesuffix(".py").removeprefix("tests/").replace("/", ".")


@functools.cache
def _repositories() -> Mapping[str, Mapping[str, Any]]:
    path = Path(__file__).parent.parent / "data" / "repositories.toml"
    entries: list[dict[str, Any]] = tomllib.loads(path.read_text(encoding="utf-8"))["repository"]
    return {entry["name"].lower(): entry for entry in entries}
