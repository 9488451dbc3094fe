"""The Pythons of this machine, and which of them a task is run with."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path

from packaging.specifiers import InvalidSpecifier, SpecifierSet

from turnwise.errors import TaskError

# First releases, from https://devguide.python.org/versions/
_RELEASED = {
    "3.5": date(2015, 9, 13),
    "3.6": date(2016, 12, 23),
    "3.7": date(2018, 6, 27),
    "3.8": date(2019, 10, 14),
    "3.9": date(2020, 10, 5),
    "3.10": date(2021, 10, 4),
    "3.11": date(2022, 10, 24),
    "3.12": date(2023, 10, 2),
    "3.13": date(2024, 10, 7),
    "3.14": date(2025, 10, 7),
}
# Half a year after a release projects support it that do not say so; wheels for it are common after a year.
_SETTLED = timedelta(days=180)
_WHEELS = timedelta(days=365)
_PROBE_TIMEOUT_S = 20
_PROBE = "import sys; print(sys.base_prefix); print('%d.%d.%d' % sys.version_info[:3])"
_CLASSIFIER = re.compile(r"Programming Language :: Python :: (3\.\d+)")
_REQUIRES = re.compile(r"(?:requires-python|python_requires)\s*=\s*[\"']?([^\"'\n]+)")
_METADATA_FILES = ("pyproject.toml", "setup.cfg", "setup.py", "pkginfo.py")


@dataclass(frozen=True)
class HostPython:
    """A Python installed on this machine.

    >>> HostPython(Path("/usr/bin/python3.11"), Path("/usr"), "3.11.2").minor
    '3.11'
    """

    executable: Path
    prefix: Path
    version: str

    @property
    def minor(self) -> str:
        """Major and minor version: "3.11"."""
        return ".".join(self.version.split(".")[:2])

    @property
    def is_older_than_37(self) -> bool:
        """Its newest setuptools cannot make PEP 660's editable installs, which are the only ones that uv makes."""
        return tuple(map(int, self.minor.split("."))) < (3, 7)

    @property
    def wheels_since(self) -> date:
        """The day from which on most packages had wheels for it."""
        return _RELEASED.get(self.minor, date(2015, 9, 13)) + _WHEELS


def find_python(minor: str) -> HostPython | None:
    """A Python of this minor version ("3.9"): the running one, uv's, pyenv's, or `pythonX.Y` on PATH, /usr/local, /usr.

    None when there is none that starts.
    """
    return next((found for path in _candidates(minor) if (found := _probe(path)) and found.minor == minor), None)


def pick_python(instance_id: str, wanted: str, root: Path, day: date) -> HostPython:
    """The Python that a row names, else the newest that was out on `day`, is here, and fits the repository's metadata.

    Raises TaskError naming the row and what to install.
    """
    if wanted:
        found = find_python(wanted)
        if found is None:
            raise TaskError(
                f"{instance_id}: its row wants Python {wanted}, which is not on this machine; install it with "
                f"`uv python install {wanted}` or `pyenv install {wanted}`"
            )
        return found
    for minor in by_fitness(root, day):
        if found := find_python(minor):
            return found
    raise TaskError(
        f"{instance_id}: no Python on this machine fits what its repository says of itself; install one with "
        "`uv python install 3.9` or name another in the row"
    )


def by_fitness(root: Path, day: date) -> list[str]:
    """Minor versions from the one to try first: those out on `day`, newest first, then later ones, oldest first."""
    texts = [
        (root / name).read_text(encoding="utf-8", errors="replace")
        for name in _METADATA_FILES
        if (root / name).is_file()
    ]
    named = {minor for text in texts for minor in _CLASSIFIER.findall(text)}
    allowed = [minor for minor in _RELEASED if all(_allows(text, minor) for text in texts)]
    out = [minor for minor in allowed if _RELEASED[minor] <= (day if minor in named else day - _SETTLED)]
    fit = [minor for minor in reversed(out) if not named or minor in named]
    rest = [minor for minor in reversed(out) if minor not in fit]
    return [*fit, *rest, *(minor for minor in allowed if minor not in out)]


def _allows(text: str, minor: str) -> bool:
    match = _REQUIRES.search(text)
    try:
        return match is None or SpecifierSet(match[1].strip()).contains(f"{minor}.99")
    except InvalidSpecifier:
        return True


def _candidates(minor: str) -> Iterator[Path]:
    if minor == f"{sys.version_info[0]}.{sys.version_info[1]}":
        yield Path(getattr(sys, "_base_executable", sys.executable))
    home = Path.home()
    data = Path(os.environ.get("XDG_DATA_HOME") or home / ".local" / "share")
    managed = Path(os.environ.get("UV_PYTHON_INSTALL_DIR") or data / "uv" / "python")
    yield from sorted(managed.glob(f"cpython-{minor}.*/bin/python{minor}"), reverse=True)
    pyenv = Path(os.environ.get("PYENV_ROOT") or home / ".pyenv")
    yield from sorted(pyenv.glob(f"versions/{minor}.*/bin/python{minor}"), reverse=True)
    for path in (os.environ.get("PATH"), "/usr/local/bin:/usr/bin"):
        if named := shutil.which(f"python{minor}", path=path):
            yield Path(named)


def _probe(executable: Path) -> HostPython | None:
    """What a Python says of itself; None where it does not start (pyenv's shims of versions that are not there)."""
    try:
        done = subprocess.run(
            [executable, "-I", "-c", _PROBE],
            capture_output=True,
            text=True,
            timeout=_PROBE_TIMEOUT_S,
            check=False,
            encoding="utf-8",
            errors="replace",
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    lines = done.stdout.splitlines()
    if done.returncode or len(lines) != 2:
        return None
    prefix = Path(lines[0])
    minor = ".".join(lines[1].split(".")[:2])
    own = prefix / "bin" / f"python{minor}"
    return HostPython(own if own.exists() else executable, prefix, lines[1])
