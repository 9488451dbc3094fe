"""Source distributions: found in the package registry, checked by hash, unpacked without trusting the archive."""

import hashlib
import html
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
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import InvalidSdistFilename, canonicalize_name, parse_sdist_filename
from packaging.version import Version

from turnwise.errors import TaskError

MAX_UNPACKED_BYTES = 300_000_000
_LINK = re.compile(r"""<a\s[^>]*?href=["']([^"']+)["'][^>]*>([^<]+)</a>""", re.IGNORECASE)
_LEFT_OUT = re.compile(r"(^|/)(\.git|__pycache__|[^/]+\.egg-info)(/|$)|\.py[co]$")


@dataclass(frozen=True)
class Sdist:
    """One source distribution on disk: the archive at `path`, whose SHA-256 is `sha256`."""

    package: str
    version: str
    sha256: str
    path: Path


def fetch_sdist(requirement: str, folder: Path, sha256: str = "") -> Sdist:
    """The source distribution of `NAME` (its newest release) or `NAME==VERSION`, downloaded into `folder` once.

    With `sha256`, only that archive is accepted. Raises TaskError when the name or version does not exist, has no
    source distribution, or the hash differs.
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
        page = index.page(name)
    except urllib.error.HTTPError as error:
        if error.code == 404:
            raise TaskError(f"{name}: the package registry has no such package; check the spelling") from error
        return _pip_download(name, version, folder)
    except OSError:
        return _pip_download(name, version, folder)
    url, found = _choose(name, version, page)
    path = folder / PurePosixPath(urllib.parse.urlsplit(url).path).name
    path.write_bytes(index.file(urllib.parse.urljoin(f"{index.url}/{name}/", url)))
    wanted = urllib.parse.parse_qs(urllib.parse.urlsplit(url).fragment).get("sha256", [""])[0]
    if wanted and hashlib.sha256(path.read_bytes()).hexdigest() != wanted:
        raise TaskError(f"{name}=={found}: the download does not match the registry's SHA-256; try again")
    return path, found


def _choose(name: str, version: str, page: str) -> tuple[str, str]:
    archives: dict[Version, str] = {}
    wheels = 0
    for link, label in _LINK.findall(page):
        filename = html.unescape(label).strip()
        wheels += filename.endswith(".whl")
        try:
            archives[parse_sdist_filename(filename)[1]] = html.unescape(link)
        except InvalidSdistFilename:
            continue
    if not archives:
        kind = "only wheels" if wheels else "no files"
        raise TaskError(f"{name}: the registry has {kind}, no source distribution; choose a package that ships one")
    if version and Version(version) not in archives:
        near = ", ".join(str(v) for v in sorted(archives)[-5:])
        raise TaskError(f"{name}=={version}: no source distribution of this version; the newest are {near}")
    chosen = Version(version) if version else max(archives, key=lambda v: (not v.is_prerelease, v))
    return archives[chosen], str(chosen)


@dataclass(frozen=True)
class _Index:
    """The package index that pip is set up for."""

    url: str
    certificates: str | None

    def page(self, name: str) -> str:
        return self.file(f"{self.url}/{name}/").decode()

    def file(self, url: str) -> bytes:
        context = ssl.create_default_context(cafile=self.certificates)
        request = urllib.request.Request(url, headers={"User-Agent": "turnwise", "Accept": "text/html"})
        with urllib.request.urlopen(request, timeout=60, context=context) as answer:
            content: bytes = answer.read()
        return content


def _pip_index() -> _Index:
    """From `pip config list`, whose later lines win; the environment's (`:env:`) win over all files."""
    command = [sys.executable, "-m", "pip", "config", "list"]
    listed = subprocess.run(command, capture_output=True, text=True, check=False).stdout
    found = re.findall(r"^(:env:|global|install|site|user)\.([\w-]+)='(.*)'$", listed, re.MULTILINE)
    settings = {name: value for _, name, value in sorted(found, key=lambda line: line[0] == ":env:")}
    return _Index(settings.get("index-url", "https://pypi.org/simple").rstrip("/"), settings.get("cert"))


def _pip_download(name: str, version: str, folder: Path) -> tuple[Path, str]:
    wanted = f"{name}=={version}" if version else name
    command = [
        sys.executable,
        "-m",
        "pip",
        "download",
        "-q",
        "--no-deps",
        "--no-binary",
        name,
        "-d",
        str(folder),
        wanted,
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    archives = list(folder.iterdir())
    if done.returncode or not archives:
        reason = (done.stderr.strip().splitlines() or ["pip gave no reason"])[-1]
        raise TaskError(f"{wanted}: no source distribution could be downloaded ({reason})")
    return archives[0], str(parse_sdist_filename(archives[0].name)[1])


def unpack(archive: Path, folder: Path) -> None:
    """Write the archive's regular files below its top directory into `folder`, as files of mode 644 or 755.

    Links, devices, compiled files and `*.egg-info` are left out. Raises TaskError for names that would leave `folder`,
    for archives over 300 MB and for broken ones.
    """
    total = 0
    try:
        for name, executable, content in _members(archive):
            parts = PurePosixPath(name).parts[1:]
            if not parts or _LEFT_OUT.search("/".join(parts)):
                continue
            if name.startswith("/") or ".." in parts:
                raise TaskError(f"{archive.name}: holds a file that would be written outside its folder: {name!r}")
            total += len(content)
            if total > MAX_UNPACKED_BYTES:
                raise TaskError(
                    f"{archive.name}: unpacks to more than {MAX_UNPACKED_BYTES:,} bytes; too large for tasks"
                )
            target = folder.joinpath(*parts)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(content)
            target.chmod(0o755 if executable else 0o644)
    except (tarfile.TarError, zipfile.BadZipFile, EOFError, OSError) as error:
        shutil.rmtree(folder, ignore_errors=True)
        raise TaskError(f"{archive.name}: cannot be unpacked ({error})") from error


def _members(archive: Path) -> Iterator[tuple[str, bool, bytes]]:
    if archive.suffix == ".zip":
        with zipfile.ZipFile(archive) as opened:
            for entry in opened.infolist():
                mode = entry.external_attr >> 16
                if not entry.is_dir() and (mode & 0o170000) in (0, 0o100000):
                    yield entry.filename, bool(mode & 0o111), opened.read(entry)
        return
    with tarfile.open(archive) as tar:
        for member in tar:
            file = tar.extractfile(member) if member.isfile() else None
            if file is not None:
                yield member.name, bool(member.mode & 0o111), file.read()
