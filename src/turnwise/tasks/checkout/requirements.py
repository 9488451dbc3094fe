"""What a row's requirement texts and conda environments say, in words that pip and uv take."""

import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import yaml
from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from turnwise.errors import TaskError

_FILE_URL = re.compile(r"^(?P<name>[A-Za-z0-9._-]+)\s*@\s*file://")
_EDITABLE = re.compile(r"^(?:-e|--editable)[\s=]")
_PYTHON_BUILD = re.compile(r"^(?:py\d|pyh|.*_py|pypy)")
_NOT_PACKAGES = frozenset({"python", "python-abi", "pip", "conda", "nomkl", "blas", "openblas", "mkl", "cudatoolkit"})
_SEEDS = ("pip", "setuptools", "wheel")
# Where conda and the package index call the same thing differently.
_RENAMED = {
    "pytorch": "torch",
    "brotli-python": "brotli",
    "matplotlib-base": "matplotlib",
    "msgpack-python": "msgpack",
    "tensorflow-base": "tensorflow",
    "py-xgboost": "xgboost",
    "graphviz-python": "graphviz",
    "python-graphviz": "graphviz",
    "python-flatbuffers": "flatbuffers",
    "dask-core": "dask",
    "pytables": "tables",
    "opencv": "opencv-python-headless",
    "iris": "scitools-iris",
    "importlib_metadata-base": "importlib_metadata",
    "ruamel_yaml": "ruamel.yaml",
    "typing-extensions-base": "typing-extensions",
}
# What conda brings along with a package, and the index has as a package of its own: here, the library of ecCodes.
BROUGHT = {"cfgrib": "ecmwflibs"}


@dataclass(frozen=True)
class Pins:
    """Requirement lines to install, and what of the text was left out, with the reason.

    >>> Pins(("attrs==25.3.0",), ("-e git+https://example.org/x.git: the repository itself",)).lines
    ('attrs==25.3.0',)
    """

    lines: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()


@dataclass(frozen=True)
class CondaEnvironment:
    """A conda environment file: `packages` (name → version, "" where open) that Python packages may be, and pip's part.

    `certain` tells that the file gives build strings, by which packages that are not Python's are already left out.
    """

    packages: Mapping[str, str]
    pip: tuple[str, ...]
    certain: bool
    python: str  # minor version, "" where the file does not fix one

    @property
    def seeds(self) -> tuple[str, ...]:
        """Pins of pip, setuptools and wheel, as far as the file has them."""
        return tuple(f"{name}=={self.packages[name]}" for name in _SEEDS if self.packages.get(name))

    @property
    def lines(self) -> tuple[str, ...]:
        """Requirement lines of the packages and of pip's part."""
        own = [name + (f"=={version}" if version else "") for name, version in self.packages.items()]
        return (*(line for line in own if line.split("==")[0] not in _SEEDS), *self.pip)


def read_conda(text: str, what: str) -> CondaEnvironment:
    """Read a conda environment file. Raises TaskError naming `what` when it is none.

    >>> read_conda("dependencies:\\n- numpy=1.2=py39h_0\\n- libffi=3.4=h6_1\\n- pip:\\n  - six==1.1\\n", "x").lines
    ('numpy==1.2', 'six==1.1')
    """
    try:
        content: Any = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise TaskError(f"{what}: is not YAML ({' '.join(str(error).split())[:200]})") from error
    entries = content.get("dependencies") if isinstance(content, dict) else None
    if not isinstance(entries, list):
        raise TaskError(f"{what}: has no list of dependencies, which a conda environment file has")
    parts = [entry.get("pip") or [] for entry in entries if isinstance(entry, dict)]
    if not all(isinstance(part, list) and all(isinstance(line, str) for line in part) for part in parts):
        raise TaskError(f"{what}: what pip is to install is no list of requirements")
    pip = tuple(line for part in parts for line in part)
    conda = [_conda_package(entry) for entry in entries if isinstance(entry, str)]
    certain = any(build for _, _, build in conda)
    python = {
        _RENAMED.get(name, name): version
        for name, version, build in conda
        if not (certain and build and not _PYTHON_BUILD.match(build)) and _may_be_python(name)
    }
    python |= {BROUGHT[name]: "" for name in [*python] if name in BROUGHT}
    minor = next((re.match(r"\d+\.\d+", version) for name, version, _ in conda if name == "python"), None)
    return CondaEnvironment(python, pip, certain, minor[0] if minor else "")


def _conda_package(entry: str) -> tuple[str, str, str]:
    """Name, exact version ("" where it is open) and build of "conda-forge::numpy=1.2=py39_0" or "numpy >=1.2"."""
    entry = entry.split("#")[0].split("::")[-1].strip()
    match = re.match(r"^([A-Za-z0-9._-]+)\s*(?:==?\s*([0-9][^=\s,*|]*)(?:=(\S+))?$)?", entry)
    return (match[1].lower(), match[2] or "", match[3] or "") if match else (entry, "", "")


def _may_be_python(name: str) -> bool:
    return not name.startswith("_") and (name in _SEEDS or name not in _NOT_PACKAGES)


def clean(text: str, repository: str, versions: Mapping[str, str]) -> Pins:
    """A frozen requirements text without what only its author's machine had.

    The repository itself (an editable line) is left out, for it is installed by the row's own command; other editable
    lines become ordinary ones. A line "name @ file://…" (conda's way of freezing) becomes a pin where `versions`
    (canonical name → version) knows one.
    """
    lines, left_out = [], []
    for line in requirement_lines(text):
        built = _FILE_URL.match(line)
        version = versions.get(canonicalize_name(built["name"])) if built else None
        if built and version:
            lines.append(f"{built['name']}=={version}")
        elif built:
            left_out.append(f"{built['name']}: built on another machine, its version is not told")
        elif _EDITABLE.match(line) and repository.lower() in line.lower():
            left_out.append(f"{line}: the repository itself")
        else:
            lines.append(_EDITABLE.sub("", line))
    return Pins(tuple(lines), tuple(left_out))


def requirement_lines(text: str) -> list[str]:
    """A requirements text without comments and empty lines."""
    lines = (line.split(" #")[0].strip() for line in text.splitlines())
    return [line for line in lines if line and not line.startswith("#")]


def pinned_names(lines: Sequence[str]) -> tuple[str, ...]:
    """Names that are pinned to one version, sorted: those may be younger than the row's date."""
    return tuple(
        sorted(r.name for line in lines if (r := parse(line)) and any(s.operator == "==" for s in r.specifier))
    )


def parse(line: str) -> Requirement | None:
    """A line as a requirement; None where it is an option or a path."""
    try:
        return Requirement(line)
    except InvalidRequirement:
        return None


def words(entries: Sequence[str]) -> list[str]:
    """pip's arguments in entries that may hold several: ["pytest pytest-cov"] → ["pytest", "pytest-cov"].

    A requirement with spaces in it ("numpy >= 1.2", "tomli; python_version < '3.11'") stays one.
    """
    return [word for entry in entries for word in ([entry] if parse(entry) else shlex.split(entry))]
