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
_SECTION = re.compile(rf"{_TEST_WORD.pattern}|^(dev|develop|development|default)$", re.IGNORECASE)
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
    own = canonicalize_name(str(metadata["Name"]))
    for section, text in [*_extras(metadata), *_pyproject(root), *_files(root), *_tox(root)]:
        try:
            requirement = Requirement(text.split(" #")[0].strip())
        except InvalidRequirement:
            continue
        name = canonicalize_name(requirement.name)
        # A section for developers holds everything they use; of that only pytest's plugins can matter to its tests
        # unasked (a module that a test imports and misses is installed later).
        fits = bool(_TEST_WORD.match(section)) or name.startswith("pytest-")
        applies = requirement.marker is None or requirement.marker.evaluate({"extra": ""})
        if fits and applies and name != own and not _NOT_NEEDED.match(name) and not requirement.url:
            requirement.marker = None
            wanted.setdefault(name, str(requirement))
    return list(wanted.values())


def _extras(metadata: Message) -> Iterator[tuple[str, str]]:
    extras = [extra for extra in metadata.get_all("Provides-Extra", []) if _SECTION.match(extra)]
    for text in metadata.get_all("Requires-Dist", []):
        try:
            requirement = Requirement(text)
        except InvalidRequirement:
            continue
        marker = requirement.marker
        if marker is None or marker.evaluate({"extra": ""}):
            continue
        requirement.marker = None
        yield from ((extra, str(requirement)) for extra in extras if marker.evaluate({"extra": extra}))


def _pyproject(root: Path) -> Iterator[tuple[str, str]]:
    try:
        data = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError):
        return
    groups = data.get("dependency-groups", {})
    tool = data.get("tool", {})
    poetry: dict[str, Any] = tool.get("poetry", {})
    tables: list[tuple[str, Iterable[str]]] = [(name, _group(groups, name)) for name in groups]
    tables += [(name, group.get("dependencies", {})) for name, group in poetry.get("group", {}).items()]
    tables += [("dev", poetry.get("dev-dependencies", {}))]
    environments = tool.get("hatch", {}).get("envs", {})
    tables += [(name, environment.get("dependencies", [])) for name, environment in environments.items()]
    for name, requirements in tables:
        yield from ((name, text) for text in requirements if _SECTION.match(name))


def _group(groups: dict[str, Any], name: str, depth: int = 0) -> Iterator[str]:
    for item in groups.get(name, []):
        if isinstance(item, str):
            yield item
        elif depth < 5 and "include-group" in item:
            yield from _group(groups, item["include-group"], depth + 1)


def _files(root: Path) -> Iterator[tuple[str, str]]:
    for pattern in _TEST_FILES:
        for path in sorted(root.glob(pattern)):
            yield from _lines(path.read_text(encoding="utf-8", errors="replace"))


def _tox(root: Path) -> Iterator[tuple[str, str]]:
    parser = configparser.ConfigParser(interpolation=None, strict=False)
    try:
        parser.read([root / "tox.ini", root / "setup.cfg"], encoding="utf-8")
    except (configparser.Error, UnicodeDecodeError):
        return
    for section in ("testenv", "testenv:test", "testenv:tests"):
        yield from _lines(parser.get(section, "deps", fallback=""))
    yield from _lines(parser.get("options", "tests_require", fallback=""))


def _lines(text: str) -> Iterator[tuple[str, str]]:
    lines = (line.strip() for line in text.splitlines())
    return (("test", line) for line in lines if line and not line.startswith(("#", "-", ".")))
