"""Files that are written whole or not at all."""

import os

import pytest

from turnwise.errors import InputError, StoreError
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


def test_a_link_is_written_through_and_what_is_no_file_is_left_alone(tmp_path):
    (tmp_path / "link").symlink_to("file")
    for text in ("first", "second"):
        write_text_whole(tmp_path / "link", text)
        assert (tmp_path / "link").readlink().name == "file"
        assert (tmp_path / "file").read_text() == text
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path, tmp_path / "pipe"):
        with pytest.raises(InputError, match=f"{path}: is no regular file"):
            write_text_whole(path, "text")
    assert (tmp_path / "pipe").is_fifo()


def test_what_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(StoreError, match=f"cannot write {tmp_path}/file/inside: "):
        write_text_whole(tmp_path / "file" / "inside", "text")
