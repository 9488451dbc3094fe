"""Operators on what is named: arguments swapped or dropped, the wrong variable, the wrong function."""

import ast
from collections.abc import Iterator
from itertools import pairwise

from turnwise.tasks.mutate.mutant import Edit
from turnwise.tasks.mutate.scope import Scope

_PAIRS = (
    "min max,any all,startswith endswith,lstrip rstrip,lower upper,find rfind,index rindex,split rsplit,"
    "ljust rjust,floor ceil,keys values,popleft pop,append appendleft,add discard,union intersection,"
    "isdigit isalpha,takewhile dropwhile,isupper islower,partition rpartition,encode decode,getattr hasattr,"
    "group groups,start end,match search,list tuple,islower isupper,prefix suffix,next iter"
)
_OTHER_NAME = {a: b for pair in _PAIRS.split(",") for a, b in (pair.split(), pair.split()[::-1])}
_OTHER_NAME["strip"] = "lstrip"
_OTHERS_PER_NAME = 2


def swapped_arguments(node: ast.AST, scope: Scope) -> Iterator[Edit]:
    """`f(a, b)` → `f(b, a)`."""
    if not isinstance(node, ast.Call) or any(isinstance(a, ast.Starred) for a in node.args):
        return
    for left, right in pairwise(node.args):
        (start, left_stop), (right_start, stop) = scope.span(left), scope.span(right)
        gap = scope.text.source[left_stop:right_start]
        yield Edit(start, stop, scope.segment(right) + gap + scope.segment(left))


def dropped_argument(node: ast.AST, scope: Scope) -> Iterator[Edit]:
    """`f(a, b)` → `f(a)`, `f(a, key=b)` → `f(a)`."""
    if not isinstance(node, ast.Call) or len(node.args) + len(node.keywords) < 2:
        return
    arguments: list[ast.expr | ast.keyword] = sorted([*node.args, *node.keywords], key=scope.span)
    for before, dropped in pairwise(arguments):
        if isinstance(dropped, ast.keyword) or dropped is node.args[-1]:
            yield Edit(scope.span(before)[1], scope.span(dropped)[1], "")


def wrong_variable(node: ast.AST, scope: Scope) -> Iterator[Edit]:
    """A parameter or local variable read where another one belongs; only names that are already bound there."""
    if not isinstance(node, ast.Name) or not isinstance(node.ctx, ast.Load):
        return
    bound = [*scope.parameters, *(n for n, line in scope.first_stores.items() if line < node.lineno)]
    called = isinstance(parent := scope.parent(node), ast.Call) and parent.func is node
    if node.id not in bound or called:
        return
    # Neighbours in the order of binding are the likeliest mix-ups.
    here = bound.index(node.id)
    nearest = sorted((n for n in dict.fromkeys(bound) if n != node.id), key=lambda n: abs(bound.index(n) - here))
    yield from (Edit(*scope.span(node), name) for name in nearest[:_OTHERS_PER_NAME])


def wrong_call(node: ast.AST, scope: Scope) -> Iterator[Edit]:
    """`min(x)` → `max(x)`, `x.lstrip()` → `x.rstrip()` and other twins."""
    if not isinstance(node, ast.Call):
        return
    stop = scope.span(node.func)[1]
    name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
    if name in _OTHER_NAME:
        yield Edit(stop - len(name), stop, _OTHER_NAME[name])
