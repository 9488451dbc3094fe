"""What a repository's build and tests need, as far as the repository itself tells."""

import configparser
import re
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import Distribution, PathDistribution, distributions
from pathlib import Path
from typing import Any

from packaging.utils import canonicalize_name

from turnwise.tasks.checkout.requirements import parse

_COMMANDS = {"tox": ("tox", "tox-current-env"), "nosetests": ("nose",), "pytest": ("pytest",), "py.test": ("pytest",)}
_OTHER_PURPOSE = re.compile(r"lint|pre.?commit|doc|mysql|postgres|oracle|release|bench|min|oldest|nightly|pallets-")
_BY_TAGS = re.compile(r"setuptools[_-]scm|scm_version|hatch[_-]vcs|vcs[_-]versioning|\bpbr\b", re.I)


@dataclass(frozen=True)
class _Purpose:
    """Where requirements of one purpose stand: extras and dependency groups by name, files by pattern."""

    names: tuple[str, ...]
    files: tuple[str, ...]


_TESTS = _Purpose(
    ("test", "tests", "testing"),
    (
        "requirements*test*.txt",
        "*test*requirements*.txt",
        "requirements/*test*.txt",
        "tests/requirements*.txt",
        "tests/requirements/py3.txt",
        "test/requirements*.txt",
    ),
)
_DEVELOPMENT = _Purpose(
    ("dev", "develop", "development", "all"),
    ("*dev*requirements*.txt", "requirements*dev*.txt", "requirements/dev*.txt", "requirements.txt"),
)


@dataclass(frozen=True)
class Needs:
    """Requirements files (paths in the repository) and requirement lines.

    >>> Needs(("test-requirements.txt",), ("pytest>=6",)).files
    ('test-requirements.txt',)
    """

    files: tuple[str, ...] = ()
    lines: tuple[str, ...] = ()


def needs_of_tests(root: Path, project: Distribution | None) -> Needs:
    """What the tests need: files, extras and dependency groups named for tests, else tox's, else development's.

    `project` is the project as it was installed, whose metadata has the extras.
    """
    for purpose in (_TESTS, None, _DEVELOPMENT):
        if purpose is None:
            found = Needs((), tuple(_tox_lines(root)))
        else:
            lines = [*_extra_lines(project, purpose.names), *_group_lines(root, purpose.names)]
            found = Needs(tuple(_files(root, purpose.files)), tuple(lines))
        if found.files or found.lines:
            return found
    return Needs()


def _files(root: Path, patterns: Sequence[str]) -> list[str]:
    found = {str(path.relative_to(root)) for pattern in patterns for path in root.glob(pattern) if path.is_file()}
    return sorted(path for path in found if not _OTHER_PURPOSE.search(path))


def _extra_lines(project: Distribution | None, names: Sequence[str]) -> list[str]:
    if project is None:
        return []
    declared = {str(canonicalize_name(name)): name for name in project.metadata.get_all("Provides-Extra") or ()}
    extras = [declared[name] for name in names if name in declared]
    requirements = [parsed for line in project.requires or () if (parsed := parse(line))]
    mine = [r for r in requirements if r.marker and any(_only_with(r.marker, extra) for extra in extras)]
    return [str(requirement).split(";")[0].strip() for requirement in mine]


def _only_with(marker: Any, extra: str) -> bool:
    return marker.evaluate({"extra": extra}) and not marker.evaluate({"extra": ""})


def _group_lines(root: Path, names: Sequence[str]) -> list[str]:
    groups = _pyproject(root).get("dependency-groups", {})
    return [line for name in names for line in groups.get(name, ()) if isinstance(line, str)]


def _tox_lines(root: Path) -> list[str]:
    """The lines of `[testenv] deps` that hold for every factor."""
    lines = (line.strip() for line in _setting(root / "tox.ini", "testenv", "deps").splitlines())
    return [line for line in lines if parse(line)]


def _setting(file: Path, section: str, name: str) -> str:
    """A value of an INI file; "" where it has none, or is none."""
    parser = configparser.RawConfigParser(strict=False)
    try:
        parser.read(file, encoding="utf-8")
        return parser.get(section, name, fallback="")
    except (configparser.Error, UnicodeDecodeError):
        return ""


def _pyproject(root: Path) -> dict[str, Any]:
    file = root / "pyproject.toml"
    try:
        return tomllib.loads(file.read_text(encoding="utf-8", errors="replace")) if file.is_file() else {}
    except tomllib.TOMLDecodeError:
        return {}


def names(root: Path) -> list[str]:
    """The project's name, as far as its files tell it without being run."""
    found = (_pyproject(root).get("project", {}).get("name"), _setting(root / "setup.cfg", "metadata", "name").strip())
    return [name for name in found if isinstance(name, str) and re.fullmatch(r"[\w.-]+", name)]


def is_developed(root: Path) -> bool:
    """Whether pip installs the project editable by `setup.py develop`, for it has no other build."""
    return not (root / "pyproject.toml").is_file()


def asks_git_for_its_version(root: Path) -> bool:
    """Whether the project's build looks its version up in the repository's tags."""
    files = (root / name for name in ("setup.py", "setup.cfg", "pyproject.toml"))
    return any(_BY_TAGS.search(file.read_text(encoding="utf-8", errors="replace")) for file in files if file.is_file())


def builds_with_setuptools_alone(root: Path) -> bool:
    """Whether the project's build needs nothing but setuptools and wheel, of whatever version."""
    required = _pyproject(root).get("build-system", {}).get("requires", ["setuptools"])
    names = {parsed.name for line in required if (parsed := parse(line))}
    return names <= {"setuptools", "wheel"}


def tools(command: str) -> Iterator[str]:
    """Packages of the programs that a test command starts.

    >>> list(tools("tox --current-env -epy39 -v -- tests/test_x.py")), list(tools("FOO=1 pytest -rA"))
    (['tox', 'tox-current-env'], ['pytest'])
    """
    for word in re.findall(r"[\w./-]+", command):
        yield from _COMMANDS.get(word, ())


def program_of(command: str, root: Path) -> str:
    """The program of the repository that a test command starts first ("./tests/runtests.py"); "" where it is none."""
    words = (word for word in command.split() if "=" not in word)
    first = next(words, "")
    return first if "/" in first and not first.startswith("/") and (root / first).is_file() else ""


def python_of(command: str) -> str:
    """The Python that a test command names, as tox's environments do ("py39" → "3.9"); "" where it names none.

    >>> python_of("tox --current-env -epy310 -v -- tests/test_x.py"), python_of("pytest -rA tests/test_py3.py")
    ('3.10', '')
    """
    match = re.search(r"(?<=-e)\s*py3(\d+)\b", command)
    return f"3.{match[1]}" if match else ""


def versions(site_packages: Path) -> dict[str, str]:
    """What is installed: version by canonical name."""
    return {canonicalize_name(d.metadata["Name"]): d.version for d in distributions(path=[str(site_packages)])}


def project(site_packages: Path) -> Distribution | None:
    """The distribution that was installed from the repository at /testbed, None where there is none."""
    for distribution in distributions(path=[str(site_packages)]):
        if isinstance(distribution, PathDistribution):
            origin = distribution.read_text("direct_url.json") or ""
            if "file:///testbed" in origin:
                return distribution
    return None
