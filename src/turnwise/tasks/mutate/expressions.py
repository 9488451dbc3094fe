"""Operators on expressions: comparison, boundary, arithmetic, boolean logic, constants, off-by-one positions."""

import ast
import re
from collections.abc import Iterator
from itertools import pairwise

from turnwise.tasks.mutate.mutant import Edit
from turnwise.tasks.mutate.scope import Scope

_COMPARISONS: dict[type[ast.cmpop], tuple[str, tuple[str, ...]]] = {
    ast.Eq: ("==", ("!=",)),
    ast.NotEq: ("!=", ("==",)),
    ast.Lt: ("<", (">", ">=")),
    ast.LtE: ("<=", (">=", ">")),
    ast.Gt: (">", ("<", "<=")),
    ast.GtE: (">=", ("<=", "<")),
    ast.In: ("in", ("not in",)),
    ast.NotIn: ("not in", ("in",)),
    ast.Is: ("is", ("is not",)),
    ast.IsNot: ("is not", ("is",)),
}
_BOUNDARIES: dict[type[ast.cmpop], tuple[str, str]] = {
    ast.Lt: ("<", "<="),
    ast.LtE: ("<=", "<"),
    ast.Gt: (">", ">="),
    ast.GtE: (">=", ">"),
}
_ARITHMETIC: dict[type[ast.operator], tuple[str, tuple[str, ...]]] = {
    ast.Add: ("+", ("-",)),
    ast.Sub: ("-", ("+",)),
    ast.Mult: ("*", ("+", "//")),
    ast.Div: ("/", ("*", "//")),
    ast.FloorDiv: ("//", ("*", "%")),
    ast.Mod: ("%", ("//",)),
    ast.Pow: ("**", ("*",)),
    ast.BitAnd: ("&", ("|",)),
    ast.BitOr: ("|", ("&",)),
    ast.BitXor: ("^", ("|",)),
    ast.LShift: ("<<", (">>",)),
    ast.RShift: (">>", ("<<",)),
}
_STRINGS = {"": " ", " ": "", ",": ";", ";": ",", "-": "_", "_": "-", ".": ",", "/": "-", "\n": " ", ":": ";", "s": ""}


def _compared(node: ast.Compare, scope: Scope) -> Iterator[tuple[ast.cmpop, ast.expr, ast.expr]]:
    operands = [node.left, *node.comparators]
    pairs = pairwise(operands)
    yield from ((op, left, right) for op, (left, right) in zip(node.ops, pairs, strict=True))


def comparison(node: ast.AST, scope: Scope) -> Iterator[Edit]:
    """`a == b` → `a != b`, `a < b` → `a > b`, `a in b` → `a not in b`, `a is b` → `a is not b`."""
    if not isinstance(node, ast.Compare):
        return
    for op, left, right in _compared(node, scope):
        token, others = _COMPARISONS[type(op)]
        if place := scope.token_between(left, right, token):
            yield from (Edit(*place, other) for other in others)


def boundary(node: ast.AST, scope: Scope) -> Iterator[Edit]:
    """`a < b` → `a <= b` and the like."""
    if not isinstance(node, ast.Compare):
        return
    for op, left, right in _compared(node, scope):
        if type(op) in _BOUNDARIES:
            token, other = _BOUNDARIES[type(op)]
            if place := scope.token_between(left, right, token):
                yield Edit(*place, other)


def arithmetic(node: ast.AST, scope: Scope) -> Iterator[Edit]:
    """`a + b` → `a - b`, `a += b` → `a -= b` and `a = b`, `-a` → `a`."""
    if isinstance(node, ast.BinOp) and type(node.op) in _ARITHMETIC:
        token, others = _ARITHMETIC[type(node.op)]
        # "..." % x is formatting, not arithmetic: no other operator makes a bug that anyone would write.
        if isinstance(node.op, ast.Mod) and isinstance(node.left, (ast.Constant, ast.JoinedStr)):
            return
        if place := scope.token_between(node.left, node.right, token):
            yield from (Edit(*place, other) for other in others)
    elif isinstance(node, ast.AugAssign) and type(node.op) in _ARITHMETIC:
        token, others = _ARITHMETIC[type(node.op)]
        if place := scope.token_between(node.target, node.value, token + "="):
            yield from (Edit(*place, other) for other in (*(o + "=" for o in others), "="))
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub) and not isinstance(node.operand, ast.Constant):
        start, _ = scope.span(node)
        yield Edit(start, start + 1, "")


def boolean(node: ast.AST, scope: Scope) -> Iterator[Edit]:
    """`a and b` → `a or b`, `a`, `b`; `not a` → `a`; `if a:` → `if not a:`."""
    if isinstance(node, ast.BoolOp):
        token, other = ("and", "or") if isinstance(node.op, ast.And) else ("or", "and")
        for left, right in pairwise(node.values):
            if place := scope.token_between(left, right, token):
                yield Edit(*place, other)
        first, last = scope.span(node)
        yield Edit(scope.span(node.values[-2])[1], last, "")
        yield Edit(first, scope.span(node.values[1])[0], "")
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
        start, stop = scope.span(node)
        match = re.match(r"not\s*", scope.text.source[start:stop])
        assert match is not None
        yield Edit(start, start + match.end(), "")
    elif isinstance(node, (ast.If, ast.While, ast.IfExp)) and isinstance(
        node.test, (ast.Name, ast.Call, ast.Attribute, ast.Subscript)
    ):
        start, _ = scope.span(node.test)
        yield Edit(start, start, "not ")


def constant(node: ast.AST, scope: Scope) -> Iterator[Edit]:
    """`1` → `2` and `0`, `True` → `False`, `","` → `";"`; slices, ranges and returns have operators of their own."""
    if not isinstance(node, ast.Constant) or _is_position(node, scope) or isinstance(scope.parent(node), ast.Return):
        return
    value, place = node.value, scope.span(node)
    if isinstance(value, bool):
        yield Edit(*place, str(not value))
    elif isinstance(value, int) and scope.segment(node).isdecimal():
        yield Edit(*place, str(value + 1))
        if value > 0:
            yield Edit(*place, str(value - 1))
    elif isinstance(value, float):
        yield Edit(*place, repr(value + 1))
    elif isinstance(value, str) and value in _STRINGS and not isinstance(scope.parent(node), ast.Expr):
        quote = scope.segment(node)[-1]
        yield Edit(*place, quote + _STRINGS[value].replace("\n", "\\n") + quote)


def _is_position(node: ast.AST, scope: Scope) -> bool:
    """True for a number that an index, a slice or a range counts with: the business of `off_by_one`."""
    parent = scope.parent(node)
    if isinstance(parent, ast.UnaryOp):
        node, parent = parent, scope.parent(parent)
    in_range = isinstance(parent, ast.Call) and _is_call_of(parent, "range")
    return isinstance(parent, ast.Slice) or in_range or (isinstance(parent, ast.Subscript) and parent.slice is node)


def _is_call_of(node: ast.Call, name: str) -> bool:
    return isinstance(node.func, ast.Name) and node.func.id == name


def off_by_one(node: ast.AST, scope: Scope) -> Iterator[Edit]:
    """`x[1:n]` → `x[0:n]`; `x[0]` → `x[1]`; `range(n)` → `range(n - 1)`; `enumerate(x)` → `enumerate(x, 1)`."""
    if isinstance(node, ast.Slice):
        for bound in (node.lower, node.upper):
            if bound is not None:
                yield from (Edit(*scope.span(bound), text) for text in _neighbours(bound, scope))
    elif isinstance(node, ast.Subscript) and _integer(node.slice) is not None:
        yield from (Edit(*scope.span(node.slice), text) for text in _neighbours(node.slice, scope))
    elif isinstance(node, ast.Call) and _is_call_of(node, "range") and not node.keywords:
        for bound in node.args[:2]:
            yield from (Edit(*scope.span(bound), text) for text in _neighbours(bound, scope))
        if len(node.args) == 1:
            start, _ = scope.span(node.args[0])
            yield Edit(start, start, "1, ")
    elif isinstance(node, ast.Call) and _is_call_of(node, "enumerate") and len(node.args) == 1 and not node.keywords:
        _, stop = scope.span(node.args[0])
        yield Edit(stop, stop, ", 1")


def _integer(node: ast.expr) -> int | None:
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        inner = _integer(node.operand)
        return None if inner is None else -inner
    if isinstance(node, ast.Constant) and type(node.value) is int:
        return node.value
    return None


def _neighbours(node: ast.expr, scope: Scope) -> Iterator[str]:
    """How a bound is written one too high or one too low."""
    value = _integer(node)
    if value is not None:
        yield from (str(value + 1), str(value - 1))
    elif isinstance(node, ast.BinOp) and isinstance(node.op, (ast.Add, ast.Sub)) and _integer(node.right) == 1:
        yield scope.segment(node.left)
    elif isinstance(node, (ast.Name, ast.Attribute, ast.Call, ast.Subscript)):
        yield from (f"{scope.segment(node)} + 1", f"{scope.segment(node)} - 1")
