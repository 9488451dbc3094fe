"""Taking tests out of a test file, so that they can be hidden, and leaving the rest as it was."""

import ast
from collections.abc import Collection, Iterator, Sequence

from turnwise.errors import TaskError

_Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


def without_tests(source: str, test_ids: Collection[str]) -> str:
    """The test file without the functions that these node ids name (all parameters of each).

    A class or block that is emptied gets `pass`. Raises TaskError where an id's function is not defined in this file
    (tests inherited from another file, or made at run time).

    >>> without_tests("def test_a():\\n    pass\\n\\n\\ndef test_b():\\n    pass\\n", ["t.py::test_a"])
    'def test_b():\\n    pass\\n'
    """
    tree = ast.parse(source)
    doomed: set[ast.stmt] = set()
    for path in sorted({_names(test_id) for test_id in test_ids}):
        found = _find(tree, path)
        if not found:
            raise TaskError(f"{'::'.join(path)} is not defined in its file, so it cannot be hidden")
        doomed.update(found)
    lines = source.split("\n")
    gone, fillers = _cuts(tree, doomed, lines)
    kept = [fillers.get(n, line) for n, line in enumerate(lines, 1) if n in fillers or n not in gone]
    text = "\n".join(kept).rstrip("\n")
    return text + "\n" if text else ""


def _names(test_id: str) -> tuple[str, ...]:
    """`f.py::Class::test[1]` → (Class, test). Parameters may hold anything, `::` too."""
    return tuple(test_id.partition("[")[0].split("::")[1:])


def _find(tree: ast.Module, path: Sequence[str]) -> list[ast.stmt]:
    """The definitions of the function that a path of names ends in; bases in the same file are looked through."""
    holders: list[ast.AST] = [tree]
    for name in path[:-1]:
        holders = [
            c for holder in holders for c in _definitions(holder) if isinstance(c, ast.ClassDef) and c.name == name
        ]
    seen: set[ast.AST] = set()
    while holders:
        found: list[ast.stmt] = [
            d for h in holders for d in _definitions(h) if not isinstance(d, ast.ClassDef) and d.name == path[-1]
        ]
        if found:
            return found
        seen.update(holders)
        bases = {b.id for h in holders if isinstance(h, ast.ClassDef) for b in h.bases if isinstance(b, ast.Name)}
        holders = [c for c in _definitions(tree) if isinstance(c, ast.ClassDef) and c.name in bases and c not in seen]
    return []


def _definitions(holder: ast.AST) -> Iterator[_Definition]:
    """Functions and classes directly in a module or class, those under `if`, `try` and `with` included."""
    for child in ast.iter_child_nodes(holder):
        if isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            yield child
        elif isinstance(child, (ast.If, ast.Try, ast.With, ast.ExceptHandler)):
            yield from _definitions(child)


def _cuts(tree: ast.Module, doomed: set[ast.stmt], lines: list[str]) -> tuple[set[int], dict[int, str]]:
    """(the lines to take out, the lines that get other text), by 1-based number.

    A statement goes with the blank lines after it; the last of a block with those before it, because those after it
    part the block from the next.
    """
    gone: set[int] = set()
    fillers: dict[int, str] = {}
    for block, may_be_empty in _blocks(tree):
        for index, stmt in enumerate(block):
            if stmt not in doomed:
                continue
            first = min([stmt.lineno, *(d.lineno for d in getattr(stmt, "decorator_list", []))])
            last = stmt.end_lineno or stmt.lineno
            ends_block = all(later in doomed for later in block[index:])
            while ends_block and index > 0 and not lines[first - 2].strip():
                first -= 1
            while not ends_block and last < len(lines) and not lines[last].strip():
                last += 1
            gone.update(range(first, last + 1))
            if index == 0 and ends_block and not may_be_empty:
                fillers[first] = " " * stmt.col_offset + "pass"
    return gone, fillers


def _blocks(tree: ast.Module) -> Iterator[tuple[list[ast.stmt], bool]]:
    """Every block of statements, and whether nothing may be left of it (only the module's own)."""
    for node in ast.walk(tree):
        for name in ("body", "orelse", "finalbody"):
            block = getattr(node, name, None)
            if isinstance(block, list):
                yield block, node is tree
