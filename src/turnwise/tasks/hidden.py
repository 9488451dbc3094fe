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
    for first, last, filler in sorted(_cuts(tree, doomed, lines), reverse=True):
        lines[first - 1 : last] = filler
    text = "\n".join(lines).rstrip("\n")
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


def _cuts(tree: ast.Module, doomed: set[ast.stmt], lines: list[str]) -> Iterator[tuple[int, int, list[str]]]:
    """(first line, last line, what stands there instead) for every doomed statement, blank lines after it included."""
    for node in ast.walk(tree):
        for block in (getattr(node, name, None) for name in ("body", "orelse", "finalbody")):
            gone = [stmt for stmt in block if stmt in doomed] if isinstance(block, list) else []
            emptied = bool(gone) and len(gone) == len(block or []) and not isinstance(node, ast.Module)
            for index, stmt in enumerate(gone):
                decorators = getattr(stmt, "decorator_list", [])
                first = min([stmt.lineno, *(d.lineno for d in decorators)])
                last = stmt.end_lineno or stmt.lineno
                filler = [" " * stmt.col_offset + "pass"] if emptied and index == 0 else []
                while not filler and last < len(lines) and not lines[last].strip():
                    last += 1
                yield first, last, filler
