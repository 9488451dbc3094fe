"""The Python environment of a package's tests: all that the package needs, and of itself only its metadata."""

import importlib.util
import re
import shutil
import subprocess
import sys
import venv
from collections.abc import Sequence
from dataclasses import dataclass
from email.message import Message
from email.parser import Parser
from importlib.metadata import Distribution, PathDistribution, distributions
from pathlib import Path, PurePosixPath

from packaging.utils import canonicalize_name

from turnwise.errors import TaskError

INSIDE = "/opt/env"  # where sandboxes see the environment
_INSTALL_TIMEOUT_S = 900


@dataclass(frozen=True)
class PythonEnvironment:
    """A virtual environment at `folder`/venv and the package's modules that its build makes, at `folder`/generated.

    Modules of the package are not in the environment: they would show the clean source beside the broken one.
    """

    folder: Path

    @property
    def venv(self) -> Path:
        """The virtual environment, mounted read-only at /opt/env."""
        return self.folder / "venv"

    @property
    def generated(self) -> Path:
        """Files that building the package adds to its source (a `_version.py`), at their places in the repository."""
        return self.folder / "generated"

    @property
    def site_packages(self) -> Path:
        """Where pip installs to."""
        return self.venv / "lib" / f"python{sys.version_info[0]}.{sys.version_info[1]}" / "site-packages"

    def create(self) -> None:
        """Make the empty environment (no pip in it, unless ours lacks pip)."""
        venv.EnvBuilder(symlinks=True, with_pip=importlib.util.find_spec("pip") is None).create(self.venv)
        self.generated.mkdir()

    def install(self, *arguments: str) -> None:
        """`pip install` into it. Raises TaskError with pip's last words."""
        has_pip = importlib.util.find_spec("pip") is not None
        pip = [sys.executable, "-m", "pip", "--python"] if has_pip else []
        python = [str(self.venv / "bin" / "python"), *([] if has_pip else ["-m", "pip"])]
        options = ["install", "-q", "--no-input", "--disable-pip-version-check", "--no-warn-script-location"]
        command = [*pip, *python, *options, *arguments]
        try:
            done = subprocess.run(
                command,
                capture_output=True,
                encoding="utf-8",
                errors="replace",
                timeout=_INSTALL_TIMEOUT_S,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise TaskError(f"pip install {' '.join(arguments)} took more than {_INSTALL_TIMEOUT_S} s") from error
        if done.returncode:
            lines = [line for line in done.stderr.splitlines() if "ERROR" in line] or done.stderr.splitlines()[-3:]
            raise TaskError(f"pip install {' '.join(arguments)} failed: {' '.join(lines)[-600:]}")

    def metadata(self, package: str) -> Message:
        """The package's own metadata, as built."""
        return Parser().parsestr(self._distribution(package).read_text("METADATA") or "")

    def frozen(self, package: str) -> tuple[str, ...]:
        """Everything installed but the package, as exact pins, sorted."""
        found = {
            canonicalize_name(d.metadata["Name"]): d.version for d in distributions(path=[str(self.site_packages)])
        }
        return tuple(f"{name}=={version}" for name, version in sorted(found.items()) if name != package)

    def take_out_modules(self, package: str, source: Path) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Remove the package's modules; (its import paths, its modules' paths in the repository).

        An import path is the folder of the source ("" or "src") that its modules lie in as installed. Modules that
        the source lacks are kept under `generated`. Raises TaskError when the package brings compiled modules or
        none at all.
        """
        distribution = self._distribution(package)
        files = [PurePosixPath(str(file)) for file in distribution.files or ()]
        modules = [file for file in files if not _is_metadata(file)]
        python = [file for file in modules if file.suffix == ".py"]
        if any(file.suffix in (".so", ".pyd") for file in modules):
            raise TaskError(f"{package}: installs compiled modules; only pure-Python packages can be made into tasks")
        paths = import_paths(python, source)
        if not paths:
            raise TaskError(f"{package}: none of its installed modules lies in its source distribution")
        placed = [_place(file, paths, source) for file in python]
        for file, place in zip(python, placed, strict=True):
            if not (source / place).exists():
                target = self.generated / place
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(self.site_packages / file, target)
        for file in modules:
            (self.site_packages / file).unlink(missing_ok=True)
        for folder in {file.parts[0] for file in modules if len(file.parts) > 1}:
            _remove_empty(self.site_packages / folder)
        self._fix_scripts()
        return paths, tuple(sorted(str(place) for place in placed))

    def _distribution(self, package: str) -> Distribution:
        for distribution in distributions(path=[str(self.site_packages)]):
            if canonicalize_name(distribution.metadata["Name"]) == package:
                assert isinstance(distribution, PathDistribution)
                return distribution
        raise TaskError(f"{package}: its build installs a distribution of another name")

    def _fix_scripts(self) -> None:
        """Scripts start the Python at its place in a sandbox."""
        for script in (self.venv / "bin").iterdir():
            if script.is_symlink() or not script.is_file():
                continue
            content = script.read_bytes()
            fixed = re.sub(rb"\A#!.*?/bin/python[\d.]*", f"#!{INSIDE}/bin/python".encode(), content)
            script.write_bytes(fixed)


def _is_metadata(file: PurePosixPath) -> bool:
    return file.parts[0] == ".." or file.parts[0].endswith(".dist-info")


def _place(file: PurePosixPath, paths: Sequence[str], source: Path) -> PurePosixPath:
    """Where an installed module belongs in the repository."""
    choices = [PurePosixPath(path) / file for path in paths]
    beside = [c for c in choices if (source / c).exists()] or [c for c in choices if (source / c.parent).is_dir()]
    return (beside or choices)[0]


def import_paths(modules: Sequence[PurePosixPath], source: Path) -> tuple[str, ...]:
    """The folders of a source tree that its modules are imported from, the one with most modules first."""
    folders = dict.fromkeys(["", "src", *sorted(entry.name for entry in source.iterdir() if entry.is_dir())])
    counted = {folder: sum((source / folder / module).exists() for module in modules) for folder in folders}
    best = sorted((folder for folder in counted if counted[folder]), key=lambda folder: -counted[folder])
    covered: set[PurePosixPath] = set()
    chosen = []
    for folder in best:
        new = {module for module in modules if (source / folder / module).exists()} - covered
        if new:
            chosen.append(folder)
            covered |= new
    return tuple(chosen)


def _remove_empty(folder: Path) -> None:
    """Remove a folder tree that holds nothing but compiled files any more."""
    for cache in list(folder.rglob("__pycache__")):
        if not any(cache.parent.glob("*.py")):
            shutil.rmtree(cache)
    for child in sorted(folder.rglob("*"), reverse=True):
        if child.is_dir() and not any(child.iterdir()):
            child.rmdir()
    if folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()
