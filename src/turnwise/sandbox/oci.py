"""Container images without an engine: unpacked once, into a folder that `LocalBackend` runs as its root file system.

An image is a stack of tar archives. A later one replaces what earlier ones brought, and deletes by "whiteouts": an
empty file `.wh.NAME` takes NAME away, `.wh..wh..opq` all that was in its directory before (OCI image-spec, layer.md).
"""

import contextlib
import json
import os
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import IO, Any

from turnwise.errors import ImageError, InputError, SandboxError
from turnwise.sandbox.owner import is_gone, owner

_RECORD = "image.json"
_WHITEOUT, _OPAQUE = ".wh.", ".wh..wh..opq"
_COPY_S = 3_600
_LINKS = 40
_PLATFORM = {"os": "linux", "architecture": {"x86_64": "amd64", "aarch64": "arm64"}.get(os.uname().machine, "")}

Opener = Callable[[str], contextlib.AbstractContextManager[IO[bytes]]]


@dataclass(frozen=True)
class UnpackedImage:
    """An image's files at `root`, and the environment that it gives its processes.

    `SandboxSpec(None, image=str(unpacked.root), env=unpacked.env, …)` runs it with `LocalBackend`.

    >>> UnpackedImage(Path("/var/cache/image/root"), {"PATH": "/usr/bin"}).env["PATH"]
    '/usr/bin'
    """

    root: Path
    env: Mapping[str, str] = field(default_factory=dict)


def unpack_image(image: str, folder: Path) -> UnpackedImage:
    """Unpack `image` into `folder`, below `root`, once: a folder that holds one already is taken as it is.

    `image` is a file (`docker save`, an OCI archive, or `docker export`), an OCI layout's folder, or a reference, which
    is fetched by skopeo where that is installed, else taken from the Docker engine. Needs no root; then all files are
    the user's own, and device nodes are left out. Raises ImageError for what is no image, InputError for a folder
    that holds something else, SandboxError for what could not be fetched.
    """
    record = folder / _RECORD
    if not record.exists():
        if folder.exists() and any(folder.iterdir()):
            raise InputError(f"{folder} holds something else than an unpacked image: remove it, or name another folder")
        _make(image, folder)
    return UnpackedImage(folder / "root", json.loads(record.read_text(encoding="utf-8")))


def _make(image: str, folder: Path) -> None:
    """Unpack beside `folder`, and move there what is whole: however this process ends, no half of an image is there."""
    _sweep(folder)
    draft = Path(tempfile.mkdtemp(prefix=f".{folder.name}-{owner()}-", dir=folder.parent))
    whole = draft / "image"
    whole.mkdir()
    try:
        with _source(image, draft) as source:
            env = _unpack(image, source, whole / "root")
        (whole / _RECORD).write_text(json.dumps(env), encoding="utf-8")
        whole.rename(folder)
    except OSError:
        if not (folder / _RECORD).exists():  # else another process was faster
            raise
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _sweep(folder: Path) -> None:
    """Remove the drafts of processes that were killed."""
    prefix = f".{folder.name}-"
    for path in folder.parent.iterdir():
        if path.name.startswith(prefix) and is_gone(path.name.removeprefix(prefix).partition("-")[0]):
            shutil.rmtree(path, ignore_errors=True)


@contextlib.contextmanager
def _source(image: str, draft: Path) -> Iterator[Path]:
    if Path(image).exists():
        yield Path(image)
        return
    archive = draft / "image.tar"
    if shutil.which("skopeo"):
        _copy_with_skopeo(image, archive)
    else:
        _save_from_engine(image, archive)
    yield archive
    archive.unlink()


def _copy_with_skopeo(image: str, archive: Path) -> None:
    command = ["skopeo", "copy", f"docker://{image}", f"oci-archive:{archive}"]
    try:
        subprocess.run(command, check=True, capture_output=True, timeout=_COPY_S)
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
        said = (error.stderr or b"").decode(errors="replace").strip()[-300:]
        raise SandboxError(f"cannot fetch image {image}: {said or error}") from error


def _save_from_engine(image: str, archive: Path) -> None:
    from turnwise.sandbox.docker import connect

    api = connect("")
    import docker.errors

    try:
        with archive.open("wb") as file:
            for part in api.get_image(image):
                file.write(part)
    except (docker.errors.APIError, OSError) as error:
        raise SandboxError(f"cannot take image {image} from the Docker engine: {error}") from error
    finally:
        api.close()


def _unpack(image: str, source: Path, root: Path) -> dict[str, str]:
    """Unpack all layers; the image's environment."""
    root.mkdir()
    try:
        if source.is_dir():
            return _unpack_layers(image, lambda name: (source / name).open("rb"), root)
        with tarfile.open(source) as archive:
            names = set(archive.getnames())
            if names & {"manifest.json", "index.json"}:
                return _unpack_layers(image, lambda name: _member(image, archive, name), root)
        with source.open("rb") as file:
            apply_layer(file, root)
    except (tarfile.TarError, EOFError, KeyError, ValueError, FileNotFoundError) as error:
        raise ImageError(f"{image}: is no image that can be unpacked: {error}") from error
    return {}


def _member(image: str, archive: tarfile.TarFile, name: str) -> IO[bytes]:
    file = archive.extractfile(name)
    if file is None:
        raise ImageError(f"{image}: its {name} is no file")
    return file


def _unpack_layers(image: str, open_: Opener, root: Path) -> dict[str, str]:
    config, layers = _manifest(image, open_)
    for layer in layers:
        with open_(layer) as file:
            apply_layer(file, root)
    variables = (config.get("config") or {}).get("Env") or []
    return dict(variable.split("=", 1) for variable in variables)


def _manifest(image: str, open_: Opener) -> tuple[dict[str, Any], list[str]]:
    """The configuration, and the layers' names, lowest first."""

    def read(name: str) -> Any:
        with open_(name) as file:
            return json.loads(file.read())

    try:
        saved = read("manifest.json")
    except (KeyError, FileNotFoundError):
        manifest = read("index.json")
        while "manifests" in manifest:
            manifest = read(_blob(_for_this_machine(image, manifest["manifests"])))
        return read(_blob(manifest["config"])), [_blob(layer) for layer in manifest["layers"]]
    if len(saved) != 1:
        raise ImageError(f"{image}: holds {len(saved)} images; save one")
    return read(saved[0]["Config"]), saved[0]["Layers"]


def _blob(descriptor: Mapping[str, Any]) -> str:
    if str(descriptor.get("mediaType", "")).endswith("+zstd"):
        raise ValueError("its layers are compressed with zstd; save it with gzip, or uncompressed")
    return "blobs/" + str(descriptor["digest"]).replace(":", "/")


def _for_this_machine(image: str, manifests: list[dict[str, Any]]) -> dict[str, Any]:
    for manifest in manifests:
        if "platform" not in manifest or all(manifest["platform"].get(key) == _PLATFORM[key] for key in _PLATFORM):
            return manifest
    raise ImageError(f"{image}: holds nothing for {_PLATFORM['os']}/{_PLATFORM['architecture']}")


def apply_layer(file: IO[bytes], root: Path) -> None:
    """Lay one archive (gzip or plain) over `root`. Nothing it says can reach outside `root`."""
    fresh: set[Path] = set()
    with tarfile.open(fileobj=file, mode="r|*") as archive:
        for member in archive:
            name = PurePosixPath("/", member.name)
            if name == PurePosixPath("/"):
                continue
            parent = inside(root, name.parent)
            parent.mkdir(parents=True, exist_ok=True)
            if name.name == _OPAQUE:
                for path in parent.iterdir():
                    if path not in fresh:
                        _remove(path)
            elif name.name.startswith(_WHITEOUT):
                _remove(parent / name.name.removeprefix(_WHITEOUT))
            elif name.name not in ("", ".", ".."):
                _place(archive, member, parent / name.name, root)
                fresh.add(parent / name.name)


def inside(root: Path, path: PurePosixPath) -> Path:
    """Where `path` lies below `root` when `root` is "/": links are followed as they would be there."""
    waiting, found, links = list(path.parts[1:]), root, 0
    while waiting:
        part = waiting.pop(0)
        if part == "..":
            found = found if found == root else found.parent
            continue
        step = found / part
        if step.is_symlink():
            links += 1
            if links > _LINKS:
                raise ValueError(f"too many links at {path}")
            target = PurePosixPath(step.readlink())
            found = root if target.is_absolute() else found
            waiting = [*target.parts[target.is_absolute() :], *waiting]
        else:
            found = step
    return found


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _place(archive: tarfile.TarFile, member: tarfile.TarInfo, path: Path, root: Path) -> None:
    if not (member.isdir() and path.is_dir() and not path.is_symlink()):
        _remove(path)
    if member.issym():
        path.symlink_to(member.linkname)
    elif member.islnk():
        name = PurePosixPath("/", member.linkname)
        path.hardlink_to(inside(root, name.parent) / name.name)
    elif member.isdir():
        path.mkdir(exist_ok=True)
        # One must be able to fill it, and to remove it some day.
        path.chmod(member.mode & 0o1777 | 0o700)
    elif member.isreg():
        content = archive.extractfile(member)
        assert content is not None
        with path.open("wb") as file:
            shutil.copyfileobj(content, file)
        path.chmod(member.mode & 0o777)
        os.utime(path, (member.mtime, member.mtime))
    if os.geteuid() == 0 and os.path.lexists(path):
        os.lchown(path, member.uid, member.gid)
