"""What a package says its tests need, wherever it says it: extras, dependency groups, requirement files, tox.ini."""

import configparser
import re
import tomllib
from collections.abc import Iterable, Iterator
from email.message import Message
from pathlib import Path
from typing import Any

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

_TEST_WORD = re.compile(r"^(tests?|testing|unit-?tests?|pytest|check)$", re.IGNORECASE)
_TEST_FILES = (
    "*requirements*test*.txt",
    "*test*requirements*.txt",
    "requirements*/test*.txt",
    "tests/requirements*.txt",
)
# Tools around the tests; none decides an outcome, and many are heavy.
_NOT_NEEDED = re.compile(
    r"^(pytest-(cov|xdist|black|flake8|mypy|ruff|checkdocs|enabler|codspeed|benchmark|perf|randomly|sugar|html|isort|pylint)"
    r"|coverage|codecov|coveralls|tox.*|flake8.*|mypy|types-.*|black|ruff|isort|pylint|pre-commit|sphinx.*|mkdocs.*|furo"
    r"|twine|build|wheel|pip|setuptools|nox|bandit|jaraco-(packaging|tidelift)|rst-linker|atheris|virtualenv)$"
)


def declared_requirements(root: Path, metadata: Message) -> list[str]:
    """Requirements of the tests in the order they are found, one for each distribution, tools such as linters left out.

    `root` is the unpacked source distribution, `metadata` that of the built package.
    """
    wanted: dict[str, str] = {}
    for text in [*_extras(metadata), *_pyproject(root), *_files(root), *_tox(root)]:
        try:
            requirement = Requirement(text.split(" #")[0].strip())
        except InvalidRequirement:
            continue
        name = canonicalize_name(requirement.name)
        own = canonicalize_name(str(metadata["Name"]))
        applies = requirement.marker is None or requirement.marker.evaluate({"extra": ""})
        if applies and name != own and not _NOT_NEEDED.match(name) and not requirement.url:
            requirement.marker = None
            wanted.setdefault(name, str(requirement))
    return list(wanted.values())


def _extras(metadata: Message) -> Iterator[str]:
    extras = metadata.get_all("Provides-Extra", [])
    chosen = [e for e in extras if _TEST_WORD.match(e)] or [e for e in extras if e in ("dev", "develop", "development")]
    for text in metadata.get_all("Requires-Dist", []):
        try:
            requirement = Requirement(text)
        except InvalidRequirement:
            continue
        marker = requirement.marker
        if marker and not marker.evaluate({"extra": ""}) and any(marker.evaluate({"extra": e}) for e in chosen):
            requirement.marker = None
            yield str(requirement)


def _pyproject(root: Path) -> Iterator[str]:
    try:
        data = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError):
        return
    groups = data.get("dependency-groups", {})
    chosen = [name for name in groups if _TEST_WORD.match(name)] or [name for name in groups if name == "dev"]
    for name in chosen:
        yield from _group(groups, name)
    poetry: dict[str, Any] = data.get("tool", {}).get("poetry", {})
    tables = [
        g.get("dependencies", {}) for n, g in poetry.get("group", {}).items() if _TEST_WORD.match(n) or n == "dev"
    ]
    for table in [*tables, poetry.get("dev-dependencies", {})]:
        yield from table
    for environment in data.get("tool", {}).get("hatch", {}).get("envs", {}).values():
        yield from environment.get("dependencies", []) if isinstance(environment, dict) else []


def _group(groups: dict[str, Any], name: str, depth: int = 0) -> Iterator[str]:
    for item in groups.get(name, []):
        if isinstance(item, str):
            yield item
        elif depth < 5 and "include-group" in item:
            yield from _group(groups, item["include-group"], depth + 1)


def _files(root: Path) -> Iterator[str]:
    for pattern in _TEST_FILES:
        for path in sorted(root.glob(pattern)):
            yield from _lines(path.read_text(encoding="utf-8", errors="replace").splitlines())


def _lines(lines: Iterable[str]) -> Iterator[str]:
    return (line.strip() for line in lines if line.strip() and not line.strip().startswith(("#", "-", ".")))


def _tox(root: Path) -> Iterator[str]:
    parser = configparser.ConfigParser(interpolation=None, strict=False)
    try:
        parser.read([root / "tox.ini", root / "setup.cfg"], encoding="utf-8")
    except (configparser.Error, UnicodeDecodeError):
        return
    for section in ("testenv", "testenv:test", "testenv:tests"):
        yield from _lines(parser.get(section, "deps", fallback="").splitlines())
    yield from _lines(parser.get("options", "tests_require", fallback="").splitlines())
