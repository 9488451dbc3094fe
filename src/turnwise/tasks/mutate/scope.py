"""One function of a source file as the operators see it: its nodes, their parents, their places in the text."""

import ast
import re
from collections.abc import Iterator
from functools import cached_property

FunctionNode = ast.FunctionDef | ast.AsyncFunctionDef
_NESTED = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)


class SourceText:
    """A source text that finds the characters of a syntax node (whose columns count UTF-8 bytes)."""

    def __init__(self, source: str) -> None:
        self.source = source
        self.lines = [line + "\n" for line in source.split("\n")]
        self._starts = [0]
        for line in self.lines:
            self._starts.append(self._starts[-1] + len(line))

    def offset(self, lineno: int, column_bytes: int) -> int:
        """The index of a character from its 1-based line and its column in bytes."""
        line = self.lines[lineno - 1]
        column = column_bytes if line.isascii() else len(line.encode()[:column_bytes].decode())
        return self._starts[lineno - 1] + column

    def line_start(self, lineno: int) -> int:
        """The index of the first character of a line."""
        return self._starts[lineno - 1]

    def lineno(self, offset: int) -> int:
        """The 1-based line that a character stands in."""
        return self.source.count("\n", 0, offset) + 1


class Scope:
    """A function's own body and defaults, without nested functions, docstring, annotations and f-strings.

    Operators get a node of it and this object; the text helpers below answer in characters of the whole file.
    """

    def __init__(self, text: SourceText, function: FunctionNode) -> None:
        self.text = text
        self.function = function
        self.parents: dict[ast.AST, ast.AST] = {}
        self.nodes = list(self._own_nodes())

    def _own_nodes(self) -> Iterator[ast.AST]:
        body: list[ast.AST] = list(self.function.body)
        if ast.get_docstring(self.function, clean=False) is not None:
            body = body[1:]
        defaults = [*self.function.args.defaults, *(d for d in self.function.args.kw_defaults if d is not None)]
        queue: list[ast.AST] = [*defaults, *body]
        for node in queue:
            self.parents[node] = self.function
        while queue:
            node = queue.pop(0)
            # Before Python 3.12 the places of nodes inside an f-string are wrong, so f-strings are left alone.
            if isinstance(node, (*_NESTED, ast.JoinedStr)):
                continue
            yield node
            for name, value in ast.iter_fields(node):
                if name in ("annotation", "returns"):
                    continue
                for child in value if isinstance(value, list) else [value]:
                    if isinstance(child, ast.AST):
                        self.parents[child] = node
                        queue.append(child)

    def parent(self, node: ast.AST) -> ast.AST:
        """The node that holds this one."""
        return self.parents[node]

    def span(self, node: ast.expr | ast.stmt | ast.keyword | ast.ExceptHandler) -> tuple[int, int]:
        """First character and the one past the last of a node; enclosing parentheses are not part of it."""
        assert node.end_lineno is not None
        assert node.end_col_offset is not None
        return (
            self.text.offset(node.lineno, node.col_offset),
            self.text.offset(node.end_lineno, node.end_col_offset),
        )

    def segment(self, node: ast.expr | ast.stmt | ast.keyword) -> str:
        """A node's text."""
        start, stop = self.span(node)
        return self.text.source[start:stop]

    def token_between(self, left: ast.expr, right: ast.expr, token: str) -> tuple[int, int] | None:
        """Where an operator's token stands between its two operands; None where a comment makes that unsure."""
        start, stop = self.span(left)[1], self.span(right)[0]
        gap = self.text.source[start:stop]
        if "#" in gap:
            return None
        words = r"\s+".join(re.escape(word) for word in token.split())
        match = re.search(rf"\b{words}\b" if token[0].isalpha() else words, gap)
        return (start + match.start(), start + match.end()) if match else None

    def whole_lines(self, first_lineno: int, last_lineno: int) -> tuple[int, int]:
        """The characters of whole lines, their line ends included."""
        return self.text.line_start(first_lineno), self.text.line_start(last_lineno + 1)

    @cached_property
    def parameters(self) -> tuple[str, ...]:
        """The function's parameter names without self and cls."""
        args = self.function.args
        named = [*args.posonlyargs, *args.args, *args.kwonlyargs]
        starred = [a for a in (args.vararg, args.kwarg) if a is not None]
        return tuple(a.arg for a in [*named, *starred] if a.arg not in ("self", "cls"))

    @cached_property
    def first_stores(self) -> dict[str, int]:
        """The local variables with the line of their first assignment; those of a comprehension live only in it."""
        stores: dict[str, int] = {}
        inner = {n for c in self.nodes if isinstance(c, ast.comprehension) for n in ast.walk(c.target)}
        for node in self.nodes:
            if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store) and node not in inner:
                stores[node.id] = min(stores.get(node.id, node.lineno), node.lineno)
        return stores
