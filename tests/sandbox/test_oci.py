"""Images unpacked without an engine: layers as the specification lays them, and local sandboxes on them."""

import gzip
import hashlib
import io
import json
import os
import subprocess
import sys
import tarfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from turnwise.errors import InputError, SandboxError
from turnwise.sandbox import LocalBackend, unpack_image
from turnwise.sandbox.oci import apply_layer
from turnwise.types import Limits, Mount, SandboxSpec

from .engine import IMAGE, root_file_system

Entry = tuple[str, str, str]  # the name, what it is (file, folder, link, hard), its content or target


def archive(entries: Sequence[Entry]) -> bytes:
    buffer = io.BytesIO()
    kinds = {"file": tarfile.REGTYPE, "folder": tarfile.DIRTYPE, "link": tarfile.SYMTYPE, "hard": tarfile.LNKTYPE}
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, kind, content in entries:
            member = tarfile.TarInfo(name)
            member.type, member.mode = kinds[kind], 0o755 if kind == "folder" else 0o640
            if kind == "file":
                member.size = len(content)
            elif kind != "folder":
                member.linkname = content
            tar.addfile(member, io.BytesIO(content.encode()) if kind == "file" else None)
    return buffer.getvalue()


def laid(root: Path, *layers: Sequence[Entry]) -> dict[str, str]:
    """The files below `root` once these layers are laid over it."""
    root.mkdir()
    for layer in layers:
        apply_layer(io.BytesIO(archive(layer)), root)
    files = [path for path in root.rglob("*") if path.is_file() and not path.is_symlink()]
    return {str(path.relative_to(root)): path.read_text() for path in sorted(files)}


def oci_layout(folder: Path, layers: Sequence[bytes], env: Sequence[str]) -> None:
    def blob(content: bytes) -> dict[str, Any]:
        digest = hashlib.sha256(content).hexdigest()
        (folder / "blobs" / "sha256").mkdir(parents=True, exist_ok=True)
        (folder / "blobs" / "sha256" / digest).write_bytes(content)
        return {"mediaType": "application/vnd.oci.image.layer.v1.tar+gzip", "digest": f"sha256:{digest}"}

    config = blob(json.dumps({"config": {"Env": list(env)}}).encode())
    manifest = blob(json.dumps({"config": config, "layers": [blob(gzip.compress(layer)) for layer in layers]}).encode())
    other = {**manifest, "platform": {"os": "plan9", "architecture": "amd64"}}
    (folder / "index.json").write_text(json.dumps({"manifests": [other, manifest]}))


def test_later_layers_replace_and_delete(tmp_path: Path) -> None:
    base = [
        ("etc", "folder", ""), ("etc/one", "file", "1"), ("etc/two", "file", "2"),
        ("opt/lib/a", "file", "a"), ("opt/lib/b", "file", "b"), ("bin", "link", "usr/bin"), ("usr/bin/x", "file", "x"),
    ]  # fmt: skip
    above = [
        ("etc/.wh.one", "file", ""), ("etc/two", "folder", ""), ("etc/two/deep", "file", "d"),
        ("opt/lib/.wh..wh..opq", "file", ""), ("opt/lib/c", "file", "c"), ("bin/y", "file", "y"),
        ("usr/bin/z", "hard", "bin/y"), (".wh.nothing", "file", ""),
    ]  # fmt: skip
    assert laid(tmp_path / "root", base, above) == {
        "etc/two/deep": "d", "opt/lib/c": "c", "usr/bin/x": "x", "usr/bin/y": "y", "usr/bin/z": "y",
    }  # fmt: skip
    assert (tmp_path / "root" / "bin").is_symlink()


def test_nothing_is_written_or_deleted_outside(tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "kept").write_text("kept")
    outside = str(tmp_path / "outside")
    found = laid(
        tmp_path / "root",
        [("out", "link", outside), ("up", "link", "../../outside"), ("round", "link", "round/x")],
        [("../outside/a", "file", "a"), ("out/b", "file", "b"), ("up/c", "file", "c"), ("out/.wh.kept", "file", "")],
        [("out/.wh..wh..opq", "file", ""), ("stolen", "link", f"{outside}/kept"), ("stolen", "file", "mine")],
    )
    assert [path.name for path in (tmp_path / "outside").iterdir()] == ["kept"]
    assert (tmp_path / "outside" / "kept").read_text() == "kept"
    assert found["stolen"] == "mine"
    with pytest.raises(FileNotFoundError):
        laid(tmp_path / "other", [("kept", "hard", f"{outside}/kept")])
    with pytest.raises(ValueError, match="too many links"):
        apply_layer(io.BytesIO(archive([("round/y", "file", "")])), tmp_path / "root")


def test_a_layout_is_unpacked_once_with_its_environment(tmp_path: Path) -> None:
    layers = [archive([("a", "file", "1"), ("b", "file", "2")]), archive([("a", "file", "3"), (".wh.b", "file", "")])]
    oci_layout(tmp_path / "layout", layers, ["PATH=/bin", "X=a=b"])
    unpacked = unpack_image(str(tmp_path / "layout"), tmp_path / "image")
    assert unpacked.env == {"PATH": "/bin", "X": "a=b"}
    assert [(path.name, path.read_text()) for path in unpacked.root.iterdir()] == [("a", "3")]
    (unpacked.root / "a").write_text("touched")
    assert unpack_image("gone", tmp_path / "image") == unpacked
    assert sorted(path.name for path in tmp_path.iterdir()) == ["image", "layout"]


def test_a_killed_unpacking_leaves_nothing_for_long(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "slow.tar")
    program = "import sys, pathlib, turnwise.sandbox as s; s.unpack_image(sys.argv[1], pathlib.Path(sys.argv[2]))"
    images = tmp_path / "images"
    images.mkdir()
    parent = subprocess.Popen([sys.executable, "-c", program, str(tmp_path / "slow.tar"), str(images / "image")])
    with (tmp_path / "slow.tar").open("wb"):  # returns when the other side reads
        assert len(list(images.iterdir())) == 1
        parent.kill()
        parent.wait()
    assert len(list(images.iterdir())) == 1
    (tmp_path / "whole.tar").write_bytes(archive([("a", "file", "1")]))
    unpacked = unpack_image(str(tmp_path / "whole.tar"), images / "image")
    assert (unpacked.root / "a").read_text() == "1"
    assert [path.name for path in images.iterdir()] == ["image"]


def test_a_folder_that_holds_something_else_is_named(tmp_path: Path) -> None:
    (tmp_path / "image").mkdir()
    (tmp_path / "image" / "file").write_text("mine")
    (tmp_path / "some.tar").write_bytes(archive([("a", "file", "1")]))
    with pytest.raises(InputError, match="image holds something else"):
        unpack_image(str(tmp_path / "some.tar"), tmp_path / "image")
    assert (tmp_path / "image" / "file").read_text() == "mine"


def test_two_that_unpack_at_once_both_have_the_image(tmp_path: Path) -> None:
    (tmp_path / "some.tar").write_bytes(archive([(f"file{number}", "file", "x") for number in range(200)]))
    with ThreadPoolExecutor(4) as threads:
        made = list(threads.map(lambda _: unpack_image(str(tmp_path / "some.tar"), tmp_path / "image"), range(4)))
    assert made == [made[0]] * 4
    assert len(list(made[0].root.iterdir())) == 200
    assert sorted(path.name for path in tmp_path.iterdir()) == ["image", "some.tar"]


@pytest.mark.parametrize("content", [b"", b"no archive", archive([("index.json", "file", "{}")])])
def test_what_is_no_image_is_named_and_leaves_nothing(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "some.tar").write_bytes(content)
    with pytest.raises(InputError, match=r"some.tar: is no image"):
        unpack_image(str(tmp_path / "some.tar"), tmp_path / "image")
    assert [path.name for path in tmp_path.iterdir()] == ["some.tar"]


@pytest.fixture(scope="session")
def unpacked_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("unpacked")
    (folder / "exported.tar").write_bytes(root_file_system({"repo/code.py": "ONE = 1\n"}))
    return unpack_image(str(folder / "exported.tar"), folder / "image").root


async def test_the_local_backend_runs_an_unpacked_image(unpacked_root: Path, tmp_path: Path) -> None:
    (tmp_path / "hammer").write_text("bang\n")
    spec = SandboxSpec(
        None, workdir="/repo", image=str(unpacked_root), env={"PATH": "/usr/bin"}, limits=Limits(disk_mb=32),
        mounts=(Mount(tmp_path / "hammer", "/opt/tools/hammer"),),
    )  # fmt: skip
    backend = LocalBackend()
    async with backend.create(spec) as sandbox:
        show = "pwd; cat code.py /opt/tools/hammer; ls /usr/bin/apt /home 2>/dev/null; python3 -c 'print(6 * 7)'"
        assert (await sandbox.exec(show, 20)).output == "/repo\nONE = 1\nbang\n42\n"
        change = (
            "git init -q . && echo 'TWO = 2' >> code.py && mkdir /opt/lib && echo new > /opt/lib/new && rm /usr/bin/yes"
        )
        assert (await sandbox.exec(change, 20)).exit_code == 0
        async with sandbox.fork(await sandbox.snapshot()) as twin:
            assert await twin.read("code.py") == b"ONE = 1\nTWO = 2\n"
            assert (await twin.exec("git status -s; cat /opt/lib/new; yes", 20)).output.startswith("?? code.py\nnew\n")
        assert "No space left" in (await sandbox.exec("head -c 40M /dev/zero > /usr/fill", 20)).output
        assert (await sandbox.exec(f"ls {tmp_path}", 20)).exit_code != 0
    async with backend.create(spec) as sandbox:
        assert (await sandbox.exec("cat code.py; yes | head -1", 20)).output == "ONE = 1\ny\n"
    await backend.close()


async def test_what_the_local_backend_cannot_run_is_told(tmp_path: Path) -> None:
    backend = LocalBackend()
    (tmp_path / "empty").mkdir()
    for image, told in (("python:3.12", "unpack_image"), (str(tmp_path / "empty"), "has no bash")):
        with pytest.raises(InputError, match=told):
            async with backend.create(SandboxSpec(None, image=image)):
                pass
    await backend.close()


async def test_an_image_is_taken_from_the_engine(
    docker_host: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if docker_host:
        monkeypatch.setenv("DOCKER_HOST", docker_host)
    unpacked = unpack_image(IMAGE, tmp_path / "image")
    assert (unpacked.root / "usr" / "bin" / "bash").exists()
    assert unpacked.env["PATH"] == "/usr/bin:/bin"
    with pytest.raises(SandboxError, match="nobody/nothing"):
        unpack_image("nobody/nothing:1", tmp_path / "other")
