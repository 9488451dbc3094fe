"""Source distributions: found, checked and unpacked; and one clear error for each way in which that fails."""

import io
import socket
import stat
import tarfile
import tracemalloc
import zipfile

import pytest

from turnwise.errors import TaskError
from turnwise.tasks.sdist import MAX_UNPACKED_BYTES, fetch_sdist, run_pip, unpack

from .conftest import PAGE

pytestmark = pytest.mark.slow


def test_the_newest_release_is_found_and_kept(registry, make_sdist, tmp_path):
    registry.add("newest", "newest-1.9.tar.gz", make_sdist({"a": "old"}))
    registry.add("newest", "newest-1.10.tar.gz", make_sdist({"a": "new"}))
    registry.add("newest", "newest-2.0rc1.tar.gz", make_sdist({"a": "not yet"}))
    found = fetch_sdist("Newest", tmp_path)
    assert (found.package, found.version) == ("newest", "1.10")
    (registry.folder / "simple" / "newest" / PAGE).write_text("gone")
    assert fetch_sdist("newest==1.10", tmp_path, found.sha256).path == found.path


def test_what_was_yanked_or_is_for_other_pythons_is_passed_over(registry, make_sdist, tmp_path):
    registry.add("choosy", "choosy-1.0.tar.gz", make_sdist({"a": "1"}), **{"requires-python": ">=3.8"})
    registry.add("choosy", "choosy-2.0.tar.gz", make_sdist({"a": "2"}), yanked="broken")
    registry.add("choosy", "choosy-3.0.tar.gz", make_sdist({"a": "3"}), **{"requires-python": ">=4"})
    assert fetch_sdist("choosy", tmp_path).version == "1.0"
    assert fetch_sdist("choosy==2.0", tmp_path).version == "2.0"
    with pytest.raises(TaskError, match=r"choosy: no release is for Python 3\.\S+ \(>=4\)"):
        fetch_sdist("choosy==3.0", tmp_path)


def test_an_index_of_pages_for_browsers_is_left_to_pip(registry, make_sdist, package_files, tmp_path):
    content = make_sdist(package_files)
    place = registry.folder / "simple" / "turnwise-demo"
    place.mkdir(parents=True, exist_ok=True)
    (place / "turnwise_demo-1.0.tar.gz").write_bytes(content)
    page = place / "index.html"
    page.write_text('<a href="turnwise_demo-1.0.tar.gz">turnwise_demo-1.0.tar.gz</a>')
    try:
        found = fetch_sdist("turnwise-demo", tmp_path)
    finally:
        page.unlink()
    assert (found.version, found.path.read_bytes()) == ("1.0", content)


def test_a_pip_that_waits_for_an_index_is_ended(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        index = f"http://127.0.0.1:{silent.getsockname()[1]}/simple"
        with pytest.raises(TaskError, match=r"`pip download .*took more than 2 s; see that the package index is in"):
            run_pip("download", "demo", "--index-url", index, "-d", str(tmp_path), timeout_s=2)


def test_a_member_that_is_too_large_is_not_read(tmp_path):
    with (
        zipfile.ZipFile(tmp_path / "bomb.zip", "w", zipfile.ZIP_DEFLATED) as archive,
        archive.open("top/a", "w") as out,
    ):
        for _ in range(MAX_UNPACKED_BYTES // 1_000_000 + 1):
            out.write(bytes(1_000_000))
    tracemalloc.start()
    try:
        with pytest.raises(TaskError, match=r"bomb\.zip: unpacks to more than"):
            unpack(tmp_path / "bomb.zip", tmp_path / "out")
        assert tracemalloc.get_traced_memory()[1] < 10_000_000
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    ("requirement", "message"),
    [
        ("absent-package", "absent-package: the package registry has no such package"),
        ("wheelonly", "wheelonly: the registry has only wheels, no source distribution"),
        ("present==7", r"present==7: no source distribution of this version; the newest are 1\.0"),
        ("present>=1", "write NAME or NAME==VERSION"),
        ("not a name", "is no package; write NAME or NAME==VERSION"),
        ("tampered==1.0", "does not match the registry's SHA-256"),
    ],
)
def test_what_cannot_be_had_is_said(registry, make_sdist, tmp_path, requirement, message):
    registry.add("wheelonly", "wheelonly-1.0-py3-none-any.whl", b"")
    registry.add("present", "present-1.0.tar.gz", make_sdist({}))
    registry.add("tampered", "tampered-1.0.tar.gz", make_sdist({}), sha256="0" * 64)
    with pytest.raises(TaskError, match=message):
        fetch_sdist(requirement, tmp_path)


def test_another_archive_than_the_task_names_is_refused(registry, make_sdist, tmp_path):
    registry.add("present", "present-1.0.tar.gz", make_sdist({}))
    with pytest.raises(TaskError, match="the task names ffff"):
        fetch_sdist("present==1.0", tmp_path, "f" * 64)
    assert not list(tmp_path.glob("*/*.tar.gz"))


def test_unpacking_keeps_files_as_they_are(make_sdist, package_files, tmp_path):
    (tmp_path / "demo.tar.gz").write_bytes(make_sdist({**package_files, "a.egg-info/x": "", "p/__pycache__/m.pyc": ""}))
    unpack(tmp_path / "demo.tar.gz", tmp_path / "out")
    found = {str(p.relative_to(tmp_path / "out")): p for p in (tmp_path / "out").rglob("*") if p.is_file()}
    assert set(found) == set(package_files)
    assert found["notes.txt"].read_bytes() == b"kept\r\n"
    assert stat.S_IMODE(found["notes.txt"].stat().st_mode) == 0o644


def test_links_and_ways_out_are_not_followed(tmp_path):
    with tarfile.open(tmp_path / "link.tar.gz", "w:gz") as tar:
        link = tarfile.TarInfo("top/link")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(link)
    unpack(tmp_path / "link.tar.gz", tmp_path / "out")
    assert not (tmp_path / "out" / "link").exists()
    with zipfile.ZipFile(tmp_path / "evil.zip", "w") as archive:
        archive.writestr("top/../../evil.py", "x")
    with pytest.raises(TaskError, match="outside its folder"):
        unpack(tmp_path / "evil.zip", tmp_path / "out")
    assert not (tmp_path.parent / "evil.py").exists()


def test_a_broken_archive_is_named(tmp_path):
    (tmp_path / "broken.tar.gz").write_bytes(io.BytesIO(b"no archive").getvalue())
    with pytest.raises(TaskError, match=r"broken\.tar\.gz: cannot be unpacked"):
        unpack(tmp_path / "broken.tar.gz", tmp_path / "out")
