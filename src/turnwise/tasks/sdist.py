"""Source distributions: found in the package registry, checked by hash, unpacked without trusting the archive."""

import hashlib
import platform
import re
import shutil
import ssl
import subprocess
import sys
import tarfile
import tempfile
import urllib.error
import urllib.parse
import urllib.request
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath

from packaging.requirements import InvalidRequirement, Requirement
from packaging.specifiers import InvalidSpecifier, SpecifierSet
from packaging.utils import InvalidSdistFilename, canonicalize_name, parse_sdist_filename
from packaging.version import Version
from pydantic import BaseModel, Field, ValidationError

from turnwise.errors import TaskError

MAX_UNPACKED_BYTES = 300_000_000
_LEFT_OUT = re.compile(r"(^|/)(\.git|__pycache__|[^/]+\.egg-info)(/|$)|\.py[co]$")


@dataclass(frozen=True)
class Sdist:
    """One source distribution on disk: the archive at `path`, whose SHA-256 is `sha256`."""

    package: str
    version: str
    sha256: str
    path: Path


def fetch_sdist(requirement: str, folder: Path, sha256: str = "") -> Sdist:
    """The source distribution of `NAME` or `NAME==VERSION`, downloaded into `folder` once.

    Without a version it is the newest release that is for this Python and was not yanked. With `sha256`, only that
    archive is accepted. Raises TaskError when the name or version does not exist, has no source distribution, is for
    other Pythons, or the hash differs.
    """
    name, version = _parsed(requirement)
    known = sorted(folder.glob(f"{sha256}/*")) if sha256 else []
    if known:
        return Sdist(name, version, sha256, known[0])
    with tempfile.TemporaryDirectory(dir=_made(folder)) as temporary:
        archive, found = _download(name, version, Path(temporary))
        digest = hashlib.sha256(archive.read_bytes()).hexdigest()
        if sha256 and digest != sha256:
            raise TaskError(
                f"{name}=={found}: the archive's SHA-256 is {digest}, the task names {sha256}; "
                "the registry serves another file than the task was made from"
            )
        place = _made(folder / digest) / archive.name
        archive.replace(place)
    return Sdist(name, found, digest, place)


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _parsed(requirement: str) -> tuple[str, str]:
    try:
        parsed = Requirement(requirement)
    except InvalidRequirement as error:
        raise TaskError(f"{requirement!r} is no package; write NAME or NAME==VERSION") from error
    pins = [spec.version for spec in parsed.specifier if spec.operator in ("==", "===")]
    if len(pins) != len(parsed.specifier) or len(pins) > 1 or parsed.url:
        raise TaskError(f"{requirement!r}: write NAME or NAME==VERSION, so that the same archive is found again")
    return str(canonicalize_name(parsed.name)), pins[0] if pins else ""


def _download(name: str, version: str, folder: Path) -> tuple[Path, str]:
    """The archive and its version: straight from the index where that can be read, else by pip."""
    index = _pip_index()
    try:
        files = index.files(name)
    except urllib.error.HTTPError as error:
        if error.code == 404:
            raise TaskError(f"{name}: the package registry has no such package; check the spelling") from error
        return _pip_download(name, version, folder)
    except (OSError, ValidationError):  # out of reach, or one that has only pages for browsers
        return _pip_download(name, version, folder)
    chosen, found = _choose(name, version, files)
    path = folder / PurePosixPath(chosen.filename).name
    path.write_bytes(index.read(urllib.parse.urljoin(f"{index.url}/{name}/", chosen.url)))
    wanted = chosen.hashes.get("sha256")
    if wanted and hashlib.sha256(path.read_bytes()).hexdigest() != wanted:
        raise TaskError(f"{name}=={found}: the download does not match the registry's SHA-256; try again")
    return path, found


class _File(BaseModel):
    """A file of a project in the index: https://packaging.python.org/specifications/simple-repository-api."""

    filename: str
    url: str
    hashes: Mapping[str, str]
    requires_python: str | None = Field(default=None, alias="requires-python")
    yanked: bool | str = False

    @property
    def suits(self) -> bool:
        """Whether it is for the running Python; a bound that cannot be read holds nobody off, as with pip."""
        try:
            return SpecifierSet(self.requires_python or "").contains(platform.python_version(), prereleases=True)
        except InvalidSpecifier:
            return True


class _Project(BaseModel):
    files: Sequence[_File]


def _choose(name: str, version: str, files: Sequence[_File]) -> tuple[_File, str]:
    """The version that is wanted, even if it was yanked, or else the newest for this Python that was not."""
    archives: dict[Version, _File] = {}
    for file in files:
        with suppress(InvalidSdistFilename):
            archives[parse_sdist_filename(file.filename)[1]] = file
    if not archives:
        kind = "only wheels" if files else "no files"
        raise TaskError(f"{name}: the registry has {kind}, no source distribution; choose a package that ships one")
    if version and Version(version) not in archives:
        near = ", ".join(str(v) for v in sorted(archives)[-5:])
        raise TaskError(f"{name}=={version}: no source distribution of this version; the newest are {near}")
    usable = [Version(version)] if version else [v for v, file in archives.items() if not file.yanked]
    fitting = [v for v in usable if archives[v].suits]
    if not fitting:
        bounds = ", ".join(sorted({archives[v].requires_python or "" for v in usable})) or "all were yanked"
        raise TaskError(f"{name}: no release is for Python {platform.python_version()} ({bounds})")
    chosen = max(fitting, key=lambda v: (not v.is_prerelease, v))
    return archives[chosen], str(chosen)


@dataclass(frozen=True)
class _Index:
    """The package index that pip is set up for."""

    url: str
    certificates: str | None

    def files(self, name: str) -> Sequence[_File]:
        """A project's files. Raises OSError, or ValidationError where the index does not speak JSON (PEP 691)."""
        return _Project.model_validate_json(self.read(f"{self.url}/{name}/")).files

    def read(self, url: str) -> bytes:
        """What lies at an address; as JSON where there is a choice. Raises OSError."""
        context = ssl.create_default_context(cafile=self.certificates)
        headers = {"User-Agent": "turnwise", "Accept": "application/vnd.pypi.simple.v1+json, */*;q=0.1"}
        request = urllib.request.Request(url, headers=headers)
        with urllib.request.urlopen(request, timeout=60, context=context) as answer:
            content: bytes = answer.read()
        return content


def _pip_index() -> _Index:
    """From `pip config list`, whose later lines win; the environment's (`:env:`) win over all files."""
    listed = run_pip("config", "list").stdout
    found = re.findall(r"^(:env:|global|install|site|user)\.([\w-]+)='(.*)'$", listed, re.MULTILINE)
    settings = {name: value for _, name, value in sorted(found, key=lambda line: line[0] == ":env:")}
    return _Index(settings.get("index-url", "https://pypi.org/simple").rstrip("/"), settings.get("cert"))


def _pip_download(name: str, version: str, folder: Path) -> tuple[Path, str]:
    wanted = f"{name}=={version}" if version else name
    done = run_pip("download", "-q", "--no-deps", "--no-binary", name, "-d", str(folder), wanted)
    archives = list(folder.iterdir())
    if done.returncode or not archives:
        reason = (done.stderr.strip().splitlines() or ["pip gave no reason"])[-1]
        raise TaskError(f"{wanted}: no source distribution could be downloaded ({reason})")
    return archives[0], str(parse_sdist_filename(archives[0].name)[1])


def run_pip(*arguments: str, timeout_s: float = 600.0) -> subprocess.CompletedProcess[str]:
    """What pip says. Raises TaskError when it takes longer than `timeout_s`."""
    command = [sys.executable, "-m", "pip", *arguments]
    try:
        return subprocess.run(
            command, capture_output=True, encoding="utf-8", errors="replace", check=False, timeout=timeout_s
        )
    except subprocess.TimeoutExpired as error:
        told = f"`pip {' '.join(arguments)}` took more than {timeout_s:g} s; see that the package index is in reach"
        raise TaskError(told) from error


def unpack(archive: Path, folder: Path) -> None:
    """Write the archive's regular files below its top directory into `folder`, as files of mode 644 or 755.

    Links, devices, compiled files and `*.egg-info` are left out. Raises TaskError for names that would leave `folder`,
    for archives over 300 MB and for broken ones.
    """
    total = 0
    try:
        for name, executable, size, read in _members(archive):
            parts = PurePosixPath(name).parts[1:]
            if not parts or _LEFT_OUT.search("/".join(parts)):
                continue
            if name.startswith("/") or ".." in parts:
                raise TaskError(f"{archive.name}: holds a file that would be written outside its folder: {name!r}")
            total += size
            if total > MAX_UNPACKED_BYTES:
                raise TaskError(
                    f"{archive.name}: unpacks to more than {MAX_UNPACKED_BYTES:,} bytes; too large for tasks"
                )
            target = folder.joinpath(*parts)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(read())
            target.chmod(0o755 if executable else 0o644)
    except (tarfile.TarError, zipfile.BadZipFile, EOFError, OSError) as error:
        shutil.rmtree(folder, ignore_errors=True)
        raise TaskError(f"{archive.name}: cannot be unpacked ({error})") from error


def _members(archive: Path) -> Iterator[tuple[str, bool, int, Callable[[], bytes]]]:
    """The regular files: name, whether it is a program, size in bytes, and how it is read, which gives no more."""
    if archive.suffix == ".zip":
        with zipfile.ZipFile(archive) as opened:
            for entry in opened.infolist():
                mode = entry.external_attr >> 16
                if not entry.is_dir() and (mode & 0o170000) in (0, 0o100000):
                    yield entry.filename, bool(mode & 0o111), entry.file_size, partial(opened.read, entry)
        return
    with tarfile.open(archive) as tar:
        for member in tar:
            file = tar.extractfile(member) if member.isfile() else None
            if file is not None:
                yield member.name, bool(member.mode & 0o111), member.size, file.read
