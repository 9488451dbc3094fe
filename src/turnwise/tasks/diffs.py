"""Unified diffs as values: which files they touch, how much they change, and the way back. unidiff parses them."""

from collections.abc import Iterator
from dataclasses import dataclass

from unidiff.constants import DEV_NULL
from unidiff.errors import UnidiffParseError
from unidiff.patch import Hunk, PatchedFile, PatchSet

from turnwise.errors import TaskError

_TURNED = {
    "new file mode ": "deleted file mode ",
    "deleted file mode ": "new file mode ",
    "old mode ": "new mode ",
    "new mode ": "old mode ",
    "rename from ": "rename to ",
    "rename to ": "rename from ",
}


@dataclass(frozen=True)
class PatchSize:
    """How much a patch changes: `lines` counts added and removed ones.

    >>> patch_size("--- a/x\\n+++ b/x\\n@@ -1 +1 @@\\n-1\\n+2\\n")
    PatchSize(files=1, lines=2)
    """

    files: int
    lines: int


def patch_size(patch: str) -> PatchSize:
    """The files and lines that a patch changes. Raises TaskError for text that is no unified diff."""
    parsed = _parsed(patch)
    return PatchSize(len(parsed), parsed.added + parsed.removed)


def remaining_files(patch: str) -> tuple[str, ...]:
    """The files that a patch adds or changes, in its order, under their new names; those it removes are left out.

    Raises TaskError for text that is no unified diff.
    """
    return tuple(dict.fromkeys(_target(file) for file in _parsed(patch) if not file.is_removed_file))


def added_lines(patch: str) -> dict[str, tuple[str, ...]]:
    """The lines that a patch adds, bare of spaces at their ends, by the file that has them then.

    Raises TaskError for text that is no unified diff.

    >>> added_lines("--- a/x\\n+++ b/x\\n@@ -1 +1 @@\\n-1\\n+2\\n")
    {'x': ('2',)}
    """
    files = [file for file in _parsed(patch) if not file.is_removed_file]
    return {_target(file): tuple(_added(file)) for file in files}


def hunk_headers(patch: str) -> dict[str, tuple[str, ...]]:
    """What stands after each hunk's line numbers, by file: git's guess at the function that the hunk lies in.

    Raises TaskError for text that is no unified diff.

    >>> hunk_headers("--- a/x.py\\n+++ b/x.py\\n@@ -1 +1 @@ def add(a, b):\\n-1\\n+2\\n")
    {'x.py': ('def add(a, b):',)}
    """
    return {_target(file): tuple(hunk.section_header for hunk in file) for file in _parsed(patch)}


def added_file(path: str, text: str) -> str:
    """The patch that adds a file of this text."""
    lines = text.split("\n")
    ends_bare = lines[-1] != ""
    body = "".join(f"+{line}\n" for line in (lines if ends_bare else lines[:-1]))
    count = len(lines) if ends_bare else len(lines) - 1
    head = f"diff --git a/{path} b/{path}\nnew file mode 100644\n"
    if not count or not text:
        return head
    note = "\\ No newline at end of file\n" if ends_bare else ""
    return f"{head}--- /dev/null\n+++ b/{path}\n@@ -0,0 +1,{count} @@\n{body}{note}"


def reversed_patch(patch: str) -> str:
    """The patch that undoes this one, as `git diff -R` would write it.

    Raises TaskError for text that is no unified diff, and for what no text can undo: a binary change, a copied file.
    """
    return "".join(_reversed_file(file) for file in _parsed(patch))


def _parsed(patch: str) -> PatchSet:
    try:
        return PatchSet(patch)
    except UnidiffParseError as error:
        raise TaskError(f"is no unified diff ({str(error).strip()})") from error


def _target(file: PatchedFile) -> str:
    name: str = file.target_file
    return name[2:] if name.startswith("b/") else name


def _reversed_file(file: PatchedFile) -> str:
    header = list(file.patch_info or ())
    if file.is_binary_file or any(line.startswith("copy from ") for line in header):
        raise TaskError(f"changes {file.path} in a way that cannot be undone from its text")
    old, new = _side("a/", file.target_file), _side("b/", file.source_file)
    told = "".join(_reversed_header(line, old, new) for line in header)
    names = f"--- {old}\n+++ {new}\n" if file else ""
    return told + names + "".join(_reversed_hunk(hunk) for hunk in file)


def _added(file: PatchedFile) -> Iterator[str]:
    yield from (str(line.value).strip() for hunk in file for line in hunk if line.is_added)


def _side(prefix: str, name: str) -> str:
    return prefix + name[2:] if name[:2] in ("a/", "b/") else name


def _reversed_header(line: str, old: str, new: str) -> str:
    for start, turned in _TURNED.items():
        if line.startswith(start):
            return turned + line.removeprefix(start)
    if line.startswith("index ") and ".." in line:
        hashes, space, mode = line.removeprefix("index ").partition(" ")
        before, _, after = hashes.strip().partition("..")
        return f"index {after}..{before}{space}{mode}" if space else f"index {after}..{before}\n"
    if line.startswith("diff --git ") and DEV_NULL not in (old, new):
        return f"diff --git {old} {new}\n"
    return line


def _reversed_hunk(hunk: Hunk) -> str:
    section = f" {hunk.section_header}" if hunk.section_header else ""
    source = f"-{hunk.target_start},{hunk.target_length}"
    target = f"+{hunk.source_start},{hunk.source_length}"
    return f"@@ {source} {target} @@{section}\n" + "".join(_reversed_lines(hunk))


def _reversed_lines(hunk: Hunk) -> list[str]:
    """The hunk's lines with their signs turned; as in any diff, what goes stands before what comes."""
    lines: list[str] = []
    going: list[str] = []
    coming: list[str] = []
    last = lines
    for line in hunk:
        if line.is_added or line.is_removed:
            sign, last = ("-", going) if line.is_added else ("+", coming)
            last.append(sign + line.value)
        elif line.is_context:
            lines += [*going, *coming, f" {line.value}"]
            going, coming, last = [], [], lines
        elif line.value.strip():  # "\ No newline at end of file" belongs to the line before it
            last.append(str(line))
    return [*lines, *going, *coming]
