"""Files that are written whole or not at all."""

import pytest

from turnwise.errors import StoreError
from turnwise.files import write_text_whole, write_whole


def test_a_file_takes_its_place_when_it_is_whole(tmp_path):
    path = tmp_path / "new" / "file"
    with write_whole(path) as out:
        out.write(b"first")
        assert not path.exists()
    assert path.read_bytes() == b"first"
    write_text_whole(path, "naïve\n")
    assert path.read_bytes() == "naïve\n".encode()


def test_after_an_error_it_is_as_it_was(tmp_path):
    path = tmp_path / "file"
    path.write_text("before")
    with pytest.raises(TypeError), write_whole(path) as out:
        out.writelines([b"half of it", None])
    assert path.read_text() == "before"
    assert list(tmp_path.iterdir()) == [path]


def test_what_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(StoreError, match=f"cannot write {tmp_path}/file/inside: "):
        write_text_whole(tmp_path / "file" / "inside", "text")
