"""The agent's tools (PAPER.md, appendix F), run inside the sandbox; Python 3.6+ and its standard library only.

All but `submit`, which is a line of shell, are here. They run thousands of times, so this module imports nothing but
`os` and `sys`, and works on bytes throughout: a file's encoding and line endings come out as they went in. The open
file and the window's first line live in a state folder from one command to the next. Results go to stdout with exit
status 0; refusals are one line on stderr with status 1.
"""

# Importing pathlib takes longer than all that a tool does.
# ruff: noqa: PTH100, PTH103, PTH120, PTH123

import os
import sys

STATE_DIR = os.environ.get("TURNWISE_STATE", "/tmp/.turnwise")
WINDOW_FILE = STATE_DIR + "/window"
AROUND_EDIT_LINES = 2
SCROLL_OVERLAP_LINES = 2
MAX_MATCHES = 50

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


class ToolError(Exception):
    """The tool does not do what was asked; the message says why in one line."""


def window_lines() -> int:
    """How many lines a view shows."""
    text = os.environ.get("TURNWISE_WINDOW", "")
    return max(int(text), 1) if text.isdigit() else 100


def show(path: bytes) -> str:
    """A path or other bytes as text fit for a message."""
    return path.decode("utf-8", "replace")


def reason(error: OSError) -> str:
    """What the system says about a file, in lower case."""
    return (error.strerror or "not possible").lower()


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
    os.makedirs(STATE_DIR, exist_ok=True)
    with open(WINDOW_FILE, "wb") as file:
        file.write(b"%d\n%s" % (first, path))


def read_lines(path: bytes) -> "list[bytes]":
    """The file's lines with their endings; refuses what is no text file."""
    try:
        with open(path, "rb") as file:
            data = file.read()
    except OSError as error:
        raise ToolError(f"{show(path)}: {reason(error)}") from None
    if b"\0" in data:
        raise ToolError(f"{show(path)}: not a text file")
    lines = [line + b"\n" for line in data.split(b"\n")]
    lines[-1] = lines[-1][:-1]
    return lines if lines[-1] else lines[:-1]


def write_lines(path: bytes, lines: "list[bytes]") -> None:
    """Replace the file's content; its mode stays."""
    try:
        with open(path, "wb") as file:
            file.write(b"".join(lines))
    except OSError as error:
        raise ToolError(f"{show(path)}: {reason(error)}") from None


def numbered(lines: "list[bytes]", first: int, last: int) -> bytes:
    """Lines `first` to `last` (counted from 1, both shown), each behind its number."""
    shown = (b"%d:%s\n" % (number, lines[number - 1].rstrip(b"\r\n")) for number in range(first, last + 1))
    return b"".join(shown)


def line_number(text: bytes) -> int:
    """A positive line number; refuses anything else."""
    if not text.isdigit() or int(text) == 0:
        raise ToolError(f"not a line number: {show(text)}")
    return int(text)


def view(path: bytes, first: int) -> bytes:
    """Move the window to `first` (kept inside the file) and return what it shows."""
    lines, height = read_lines(path), window_lines()
    total = len(lines)
    first = max(1, min(first, total - height + 1))
    last = min(total, first + height - 1)
    save_window(path, first)
    parts = [b"[File: %s (%d lines total)]\n" % (path, total)]
    if first > 1:
        parts.append(b"(%d more lines above)\n" % (first - 1))
    parts.append(numbered(lines, first, last))
    if last < total:
        parts.append(b"(%d more lines below)\n" % (total - last))
    return b"".join(parts)


def view_line(path: bytes, line: int) -> bytes:
    """Show `line` at about one sixth from the window's top; refuses a line outside the file."""
    total = len(read_lines(path))
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
    if first + window_lines() > len(read_lines(path)):
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
    write_lines(path, [b"\n"])
    return view(path, 1)


def run_search_file(args: "list[bytes]") -> bytes:
    """List the lines of a file that hold a term, taken literally."""
    expect(len(args) in (1, 2) and args[0] != b"", "search_file")
    path = os.path.abspath(args[1]) if len(args) == 2 else load_window()[0]
    lines = read_lines(path)
    found = [number for number, line in enumerate(lines, 1) if args[0] in line]
    if not found:
        raise ToolError(f'"{show(args[0])}" is not in {show(path)}')
    parts = [b'[%d lines with "%s"]\n' % (len(found), args[0])]
    parts += [numbered(lines, number, number) for number in found[:MAX_MATCHES]]
    if len(found) > MAX_MATCHES:
        parts.append(b"(%d more)\n" % (len(found) - MAX_MATCHES))
    return b"".join(parts)


def run_edit(args: "list[bytes]") -> bytes:
    """Replace an inclusive range of lines by TEXT or by what stands on stdin, the indentation taken as given."""
    path, args = take_file_option(args)
    expect(len(args) in (1, 2), "edit")
    lines = read_lines(path)
    start, end = line_range(args[0], max(len(lines), 1))
    text = args[1] if len(args) == 2 else text_on_stdin()
    ending = b"\r\n" if lines and lines[0].endswith(b"\r\n") else b"\n"
    new = [line + ending for line in text.replace(b"\r\n", b"\n").split(b"\n")]
    if text == b"" or text.endswith(b"\n"):
        new.pop()
    lines[start - 1 : end] = new
    write_lines(path, lines)
    return b"[Edited: %d lines total]\n" % len(lines) + after_edit(path, lines, start, start + len(new) - 1)


def line_range(text: bytes, total: int) -> "tuple[int, int]":
    """The two ends of START:END; refuses what is no range inside the file."""
    start_text, colon, end_text = text.partition(b":")
    if not (colon and start_text.isdigit() and end_text.isdigit()):
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
    data = b"".join(read_lines(path))
    count = data.count(args[0])
    if count == 0:
        raise ToolError(f"search text not found in {show(path)}")
    if count > 1 and not everywhere:
        raise ToolError(f"search text found {count} times; make it longer or add --replace-all")
    start = data[: data.index(args[0])].count(b"\n") + 1
    write_lines(path, [data.replace(args[0], args[1])])
    stop = start + args[1].count(b"\n")
    return b"[Edited: %d replaced]\n" % count + after_edit(path, read_lines(path), start, stop)


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
    return numbered(lines, first, shown_last) + cut + syntax_warning(path, lines)


def syntax_warning(path: bytes, lines: "list[bytes]") -> bytes:
    """One line when a Python file no longer parses; the edit stays all the same."""
    if not path.endswith(b".py"):
        return b""
    try:
        compile(b"".join(lines), "<edit>", "exec", dont_inherit=True)
    except SyntaxError as error:
        return f"warning: line {error.lineno}: {type(error).__name__}: {error.msg}\n".encode()
    except ValueError as error:
        return f"warning: {error}\n".encode()
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
        sys.stderr.buffer.write(f"{tool}: {refusal}\n".encode("utf-8", "replace"))
        return 1
    try:
        sys.stdout.buffer.write(output)
        sys.stdout.buffer.flush()
    except BrokenPipeError:  # `open FILE | head` has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    return 0
