"""The files that the agent's tools read and write, as bytes; Python 3.6+ and its standard library only.

Viewing takes memory for what is shown; what changes a file holds all of it. A file is replaced whole or not at all.
"""

# Importing pathlib takes longer than all that a tool does.
# ruff: noqa: PTH104, PTH108, PTH116, PTH118, PTH120, PTH123, SIM105

import io
import os

MAX_EDITED_BYTES = 64 << 20
MAX_LINE_BYTES = 1 << 16  # of one line of a view
BLOCK_BYTES = 1 << 20
BOM = b"\xef\xbb\xbf"


class ToolError(Exception):
    """The tool does not do what was asked; the message says why in one line."""


def show(path: bytes) -> str:
    """A path or other bytes as text fit for a message of one line."""
    return path.decode("utf-8", "replace").replace("\n", "\\n")


def reason(error: OSError) -> str:
    """What the system says about a file, in lower case."""
    return (error.strerror or "not possible").lower()


def open_text(path: bytes) -> "io.BufferedReader":
    """The file, open for reading; refuses what is no regular file: a pipe or a device may never end."""
    try:
        kind = os.stat(path).st_mode & 0o170000
        if kind not in (0o100000, 0o040000):
            raise ToolError(f"{show(path)}: not a regular file")
        return open(path, "rb")
    except OSError as error:
        raise ToolError(f"{show(path)}: {reason(error)}") from None


def read_lines(path: bytes) -> "list[bytes]":
    """The file's lines with their endings; refuses what is no text file or too large to be changed."""
    with open_text(path) as file:
        data = file.read(MAX_EDITED_BYTES + 1)
    if len(data) > MAX_EDITED_BYTES:
        raise ToolError(f"{show(path)}: too large; at most {MAX_EDITED_BYTES >> 20} MB")
    if b"\0" in data:
        raise ToolError(f"{show(path)}: not a text file")
    return split_lines(data)


def split_lines(data: bytes) -> "list[bytes]":
    """Lines with their endings."""
    lines = [line + b"\n" for line in data.split(b"\n")]
    lines[-1] = lines[-1][:-1]
    return lines if lines[-1] else lines[:-1]


def count_lines(path: bytes) -> int:
    """How many lines the file has, in bounded memory; refuses what is no text file."""
    count, last = 0, b"\n"
    with open_text(path) as file:
        block = file.read(BLOCK_BYTES)
        while block:
            if b"\0" in block:
                raise ToolError(f"{show(path)}: not a text file")
            count, last = count + block.count(b"\n"), block[-1:]
            block = file.read(BLOCK_BYTES)
    return count if last == b"\n" else count + 1


def read_window(path: bytes, first: int, last: int) -> bytes:
    """Lines `first` to `last`, each behind its number, in bounded memory: the middle of a line may be left out."""
    parts = []
    with open_text(path) as file:
        for number in range(1, last + 1):
            line = read_line(file)
            if number >= first:
                parts.append(numbered([line], number))
    return b"".join(parts)


def read_line(file: "io.BufferedReader") -> bytes:
    """The next line, cut where it is very long."""
    line = file.readline(MAX_LINE_BYTES)
    left_out, end = 0, line
    while end and not end.endswith(b"\n"):
        end = file.readline(BLOCK_BYTES)
        left_out += len(end)
    return line if not left_out else line + b"... (%d more bytes)\n" % left_out


def write_file(path: bytes, data: bytes) -> None:
    """Replace the file's content, all or nothing; its mode, its owner and a link to it stay."""
    try:
        write_whole(os.path.realpath(path), data)
    except OSError as error:
        raise ToolError(f"{show(path)}: {reason(error)}; nothing was changed") from None


def write_whole(path: bytes, data: bytes) -> None:
    """Write a file beside the one at `path` and give it its name: no full disk or kill leaves a part of it."""
    beside = os.path.join(os.path.dirname(path), b".turnwise-edit-%d" % os.getpid())
    # Not O_EXCL: a file of this name is one that a killed process with the same id left.
    descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o666)
    try:
        with os.fdopen(descriptor, "wb") as file:
            take_over(path, file.fileno())
            file.write(data)
        os.rename(beside, path)
    except BaseException:
        os.unlink(beside)
        raise


def take_over(path: bytes, descriptor: int) -> None:
    """Give an open file the mode and the owner of the file at `path`, where there is one that may be written."""
    try:
        with open(path, "r+b") as file:
            old = os.fstat(file.fileno())
    except FileNotFoundError:
        return
    new = os.fstat(descriptor)
    if (old.st_uid, old.st_gid) != (new.st_uid, new.st_gid):
        try:
            os.fchown(descriptor, old.st_uid, old.st_gid)
        except PermissionError:  # only root may give files away; the content counts
            pass
    os.fchmod(descriptor, old.st_mode & 0o7777)


def numbered(lines: "list[bytes]", first: int) -> bytes:
    """The lines, each behind its number, the first one's being `first`; a byte order mark is not shown."""
    parts = []
    for number, line in enumerate(lines, first):
        text = line[len(BOM) :] if number == 1 and line.startswith(BOM) else line
        parts.append(b"%d:%s\n" % (number, text.rstrip(b"\r\n")))
    return b"".join(parts)
