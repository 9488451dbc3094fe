"""The agent's tools (PAPER.md, appendix F), run inside the sandbox; Python 3.6+ and its standard library only.

All but `submit`, which is a line of shell, are here. They run thousands of times, so they import nothing but `os`
and `sys`, and work on bytes throughout: a file's encoding and line endings come out as they went in. The open
file and the window's first line live in a state folder from one command to the next. Results go to stdout with exit
status 0; refusals are one line on stderr with status 1, and have changed nothing.
"""

# Importing pathlib takes longer than all that a tool does.
# ruff: noqa: PTH100, PTH103, PTH108, PTH120, PTH123

import os
import sys

from _files import (
    BOM,
    MAX_LINE_BYTES,
    ToolError,
    count_lines,
    numbered,
    open_text,
    read_lines,
    read_window,
    reason,
    show,
    split_lines,
    write_file,
    write_whole,
)

STATE_DIR = os.environ.get("TURNWISE_STATE", "/tmp/.turnwise")
WINDOW_FILE = STATE_DIR + "/window"
AROUND_EDIT_LINES = 2
SCROLL_OVERLAP_LINES = 2
MAX_MATCHES = 50
MAX_PARSED_BYTES = 1 << 20
WRITERS = ("create", "edit", "replace")

USAGE = {
    "create": "create FILE",
    "open": "open [FILE] [LINE]",
    "goto": "goto LINE",
    "scroll_up": "scroll_up",
    "scroll_down": "scroll_down",
    "search_file": "search_file TERM [FILE]",
    "edit": "edit [--file PATH] START:END [TEXT], or the text as a heredoc",
    "replace": "replace [--file PATH] SEARCH REPLACE [--replace-all]",
}


def window_lines() -> int:
    """How many lines a view shows."""
    text = os.environ.get("TURNWISE_WINDOW", "")
    return max(int(text), 1) if text.isdigit() else 100


def load_window() -> "tuple[bytes, int]":
    """The open file and the first line of its window; refuses when no file is open."""
    try:
        with open(WINDOW_FILE, "rb") as file:
            first, path = file.read().split(b"\n", 1)
        return path, int(first)
    except (OSError, ValueError):
        raise ToolError("no file is open; use: open FILE") from None


def save_window(path: bytes, first: int) -> None:
    """Remember the open file and the first line of its window."""
    try:
        os.makedirs(STATE_DIR, exist_ok=True)
        write_whole(os.fsencode(WINDOW_FILE), b"%d\n%s" % (first, path))
    except OSError as error:
        raise ToolError(f"the open file cannot be remembered: {reason(error)}") from None


def line_number(text: bytes) -> int:
    """A positive line number; refuses anything else."""
    if not is_number(text) or int(text) == 0:
        raise ToolError(f"not a line number: {show(text)}")
    return int(text)


def is_number(text: bytes) -> bool:
    """Whether it is digits, and not so many that Python would refuse them."""
    return text.isdigit() and len(text) < 19


def view(path: bytes, first: int) -> bytes:
    """Move the window to `first` (kept inside the file) and return what it shows."""
    total, height = count_lines(path), window_lines()
    first = max(1, min(first, total - height + 1))
    last = min(total, first + height - 1)
    save_window(path, first)
    parts = [b"[File: %s (%d lines total)]\n" % (path, total)]
    if first > 1:
        parts.append(b"(%d more lines above)\n" % (first - 1))
    parts.append(read_window(path, first, last))
    if last < total:
        parts.append(b"(%d more lines below)\n" % (total - last))
    return b"".join(parts)


def view_line(path: bytes, line: int) -> bytes:
    """Show `line` at about one sixth from the window's top; refuses a line outside the file."""
    total = count_lines(path)
    if line > max(total, 1):
        raise ToolError(f"line {line} is outside the file, which has {total} lines")
    return view(path, line - window_lines() // 6)


def run_open(args: "list[bytes]") -> bytes:
    """Show a file from its start or around a line; without arguments, the open file where it is."""
    expect(len(args) <= 2, "open")
    if not args:
        return view(*load_window())
    path = os.path.abspath(args[0])
    return view_line(path, line_number(args[1])) if len(args) == 2 else view(path, 1)


def run_goto(args: "list[bytes]") -> bytes:
    """Move the open file's window to a line."""
    expect(len(args) == 1, "goto")
    return view_line(load_window()[0], line_number(args[0]))


def run_scroll_up(args: "list[bytes]") -> bytes:
    """Move the window up by its height, less a small overlap."""
    expect(not args, "scroll_up")
    path, first = load_window()
    if first == 1:
        raise ToolError("already at the top of the file")
    return view(path, first - scroll_step())


def run_scroll_down(args: "list[bytes]") -> bytes:
    """Move the window down by its height, less a small overlap."""
    expect(not args, "scroll_down")
    path, first = load_window()
    if first + window_lines() > count_lines(path):
        raise ToolError("already at the end of the file")
    return view(path, first + scroll_step())


def scroll_step() -> int:
    """Lines that one scroll moves: always at least one."""
    return max(1, window_lines() - SCROLL_OVERLAP_LINES)


def run_create(args: "list[bytes]") -> bytes:
    """Make a new file of one blank line, with the folders above it, and open it."""
    expect(len(args) == 1, "create")
    path = os.path.abspath(args[0])
    if os.path.lexists(path):
        raise ToolError(f"{show(args[0])} exists already; use: open {show(args[0])}")
    try:
        os.makedirs(os.path.dirname(path), exist_ok=True)
    except OSError as error:
        raise ToolError(f"{show(args[0])}: {reason(error)}") from None
    write_file(path, b"\n")
    try:
        return view(path, 1)
    except ToolError:
        os.unlink(path)
        raise


def run_search_file(args: "list[bytes]") -> bytes:
    """List the lines of a file that hold a term, taken literally."""
    expect(len(args) in (1, 2) and args[0] != b"", "search_file")
    path = os.path.abspath(args[1]) if len(args) == 2 else load_window()[0]
    count_lines(path)  # refuses what is no text file
    found, shown = 0, []
    with open_text(path) as file:
        for number, line in enumerate(file, 1):
            if args[0] in line:
                found += 1
                shown += [numbered([line[:MAX_LINE_BYTES]], number)] if found <= MAX_MATCHES else []
    if not found:
        raise ToolError(f'"{show(args[0])}" is not in {show(path)}')
    more = b"(%d more)\n" % (found - MAX_MATCHES) if found > MAX_MATCHES else b""
    return b'[%d lines with "%s"]\n' % (found, args[0]) + b"".join(shown) + more


def run_edit(args: "list[bytes]") -> bytes:
    """Replace an inclusive range of lines by TEXT or by what stands on stdin, the indentation taken as given."""
    path, args = take_file_option(args)
    expect(len(args) in (1, 2), "edit")
    lines = read_lines(path)
    start, end = line_range(args[0], max(len(lines), 1))
    text = args[1] if len(args) == 2 else text_on_stdin()
    new = [line + ending_at(lines, start - 1) for line in text.replace(b"\r\n", b"\n").split(b"\n")]
    if text == b"" or text.endswith(b"\n"):
        new.pop()
    if start == 1 and lines and lines[0].startswith(BOM) and new and not new[0].startswith(BOM):
        new[0] = BOM + new[0]
    lines[start - 1 : end] = new
    shown = after_edit(path, lines, start, start + len(new) - 1)
    write_file(path, b"".join(lines))
    return b"[Edited: %d lines total]\n" % len(lines) + shown


def ending_at(lines: "list[bytes]", index: int) -> bytes:
    """How the line ends that is there, or the file's first where it has no ending."""
    there = [line for line in lines[index : index + 1] + lines[:1] if line.endswith(b"\n")]
    return b"\r\n" if there and there[0].endswith(b"\r\n") else b"\n"


def line_range(text: bytes, total: int) -> "tuple[int, int]":
    """The two ends of START:END; refuses what is no range inside the file."""
    start_text, colon, end_text = text.partition(b":")
    if not (colon and is_number(start_text) and is_number(end_text)):
        raise ToolError(f"{show(text)} is not a line range; use START:END, like 12:14")
    start, end = int(start_text), int(end_text)
    if not 1 <= start <= end <= total:
        raise ToolError(f"lines {start}:{end} are outside the file, which has {total} lines")
    return start, end


def text_on_stdin() -> bytes:
    """All of stdin where it is a pipe or a heredoc; refuses a terminal and /dev/null: no text was given."""
    try:
        is_device = os.fstat(0).st_mode & 0o170000 == 0o020000
    except OSError:
        is_device = True
    if is_device:
        raise ToolError("no text given; add TEXT ('' deletes the lines) or a heredoc")
    return sys.stdin.buffer.read()


def run_replace(args: "list[bytes]") -> bytes:
    """Replace a text that stands exactly once in the file, or everywhere with --replace-all."""
    path, args = take_file_option(args)
    everywhere = b"--replace-all" in args
    args = [arg for arg in args if arg != b"--replace-all"]
    expect(len(args) == 2 and args[0] != b"", "replace")
    lines = read_lines(path)
    data = b"".join(lines)
    search = args[0]
    exact = b"\r" in search and search in data  # line endings are what is to be replaced
    if not exact:
        search, data = search.replace(b"\r\n", b"\n"), data.replace(b"\r\n", b"\n")
    count = data.count(search)
    if count == 0:
        raise ToolError(f"search text not found in {show(path)}")
    if count > 1 and not everywhere:
        raise ToolError(f"search text found {count} times; make it longer or add --replace-all")
    start = data[: data.index(search)].count(b"\n") + 1
    pieces = data.split(search)
    new = args[1].join(pieces) if exact else join_with_endings(lines, pieces, search, args[1])
    shown = after_edit(path, split_lines(new), start, start + args[1].count(b"\n"))
    write_file(path, new)
    return b"[Edited: %d replaced]\n" % count + shown


def join_with_endings(lines: "list[bytes]", pieces: "list[bytes]", search: bytes, text: bytes) -> bytes:
    """The `pieces` of the file, their lines ending as in `lines`, with `text` between, ending as the line it starts on.

    Pieces and `search` have bare line feeds; `lines` are the file's as they were.
    """
    text, at, parts = text.replace(b"\r\n", b"\n"), 0, []
    for index, piece in enumerate(pieces):
        *whole, rest = piece.split(b"\n")
        parts += [line + ending_at(lines, at + offset) for offset, line in enumerate(whole)] + [rest]
        at += len(whole)
        if index < len(pieces) - 1:
            parts.append(text.replace(b"\n", ending_at(lines, at)))
            at += search.count(b"\n")
    return b"".join(parts)


def take_file_option(args: "list[bytes]") -> "tuple[bytes, list[bytes]]":
    """The file to change (that of --file, else the open one) and the other arguments."""
    if b"--file" not in args[:-1]:
        return load_window()[0], args
    at = args.index(b"--file")
    return os.path.abspath(args[at + 1]), args[:at] + args[at + 2 :]


def after_edit(path: bytes, lines: "list[bytes]", start: int, stop: int) -> bytes:
    """The changed lines with a few around, cut to the window's height; a warning when Python cannot parse the file."""
    first = max(1, start - AROUND_EDIT_LINES)
    last = min(len(lines), stop + AROUND_EDIT_LINES)
    shown_last = min(last, first + max(window_lines(), 2 * AROUND_EDIT_LINES + 1) - 1)
    cut = b"(%d more lines changed below)\n" % (last - shown_last) if shown_last < last else b""
    changed: bytes = numbered(lines[first - 1 : shown_last], first)
    return changed + cut + syntax_warning(path, lines)


def syntax_warning(path: bytes, lines: "list[bytes]") -> bytes:
    """One line when a Python file no longer parses; the edit is made all the same.

    A process of its own parses: Python's parser may run out of stack or memory, and that is no reason not to edit.
    """
    if not path.endswith(b".py") or sum(map(len, lines)) > MAX_PARSED_BYTES:
        return b""
    try:
        reading, writing = os.pipe()
        child = os.fork()
    except OSError:
        return b""
    if child == 0:
        try:
            os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
            os.write(writing, parse_error(b"".join(lines)))
        finally:
            os._exit(0)
    os.close(writing)
    with open(reading, "rb") as pipe:
        warning = pipe.read()
    os.waitpid(child, 0)
    return warning


def parse_error(source: bytes) -> bytes:
    """What is wrong with Python source, in one line; nothing where it parses."""
    try:
        compile(source, "<edit>", "exec", dont_inherit=True)
    except SyntaxError as error:
        return f"warning: line {error.lineno}: {type(error).__name__}: {error.msg}\n".encode("utf-8", "replace")
    except ValueError as error:
        return f"warning: {error}\n".encode("utf-8", "replace")
    return b""


def expect(fits: bool, tool: str) -> None:
    """Refuse with the tool's usage when its arguments do not fit."""
    if not fits:
        raise ToolError(f"usage: {USAGE[tool]}")


def main(argv: "list[str]") -> int:
    """Run the tool named first; returns its exit status."""
    tool = argv[0]
    try:
        output = globals()["run_" + tool]([os.fsencode(arg) for arg in argv[1:]])
    except ToolError as refusal:
        return refuse(tool, str(refusal))
    except OSError as error:
        return refuse(tool, reason(error))
    except MemoryError:
        return refuse(tool, "not enough memory")
    return write_out(tool, output)


def refuse(tool: str, why: str) -> int:
    """Say in one line why nothing was done."""
    sys.stderr.buffer.write(f"{tool}: {why}\n".encode("utf-8", "replace"))
    return 1


def write_out(tool: str, output: bytes) -> int:
    """Print the result; a tool that has changed a file has succeeded, whether or not it can say so."""
    status = 0
    try:
        sys.stdout.buffer.write(output)
        sys.stdout.buffer.flush()
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        if not isinstance(error, BrokenPipeError):  # `open FILE | head` has seen enough
            refuse(tool, f"the output cannot be written: {reason(error)}")
            status = 0 if tool in WRITERS else 1
    return status
