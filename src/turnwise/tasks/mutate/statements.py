"""Operators on statements: guard, branch or statement removed, wrong return, exceptions, loop control."""

import ast
from collections.abc import Iterator

from turnwise.tasks.mutate.mutant import Edit
from turnwise.tasks.mutate.scope import Scope

_OTHER_EXCEPTION = {
    "KeyError": "IndexError",
    "IndexError": "KeyError",
    "ValueError": "TypeError",
    "TypeError": "ValueError",
    "AttributeError": "TypeError",
    "StopIteration": "IndexError",
    "NotImplementedError": "AttributeError",
    "Exception": "ValueError",
}
_LEAVES = (ast.Return, ast.Raise, ast.Continue, ast.Break)


def _lines(first: ast.stmt, last: ast.stmt, scope: Scope) -> Iterator[Edit]:
    """The removal of whole lines; nothing where they hold more than these statements."""
    assert last.end_lineno is not None
    start, stop = scope.whole_lines(first.lineno, last.end_lineno)
    before = scope.text.source[start : scope.span(first)[0]]
    after = scope.text.source[scope.span(last)[1] : stop].strip()
    if not before.strip() and (not after or after.startswith("#")):
        yield Edit(start, stop, "")


def removed_guard(node: ast.AST, scope: Scope) -> Iterator[Edit]:
    """`if a: return b` (or raise, continue, break), with nothing else to it, is gone."""
    if isinstance(node, ast.If) and not node.orelse and len(node.body) <= 2 and isinstance(node.body[-1], _LEAVES):
        yield from _lines(node, node, scope)


def removed_branch(node: ast.AST, scope: Scope) -> Iterator[Edit]:
    """The `else` (or last `elif`) of an `if` is gone; `a if b else c` → `a`, `c`."""
    if isinstance(node, ast.If) and node.orelse:
        assert node.body[-1].end_lineno is not None
        assert node.end_lineno is not None
        yield Edit(*scope.whole_lines(node.body[-1].end_lineno + 1, node.end_lineno), "")
    elif isinstance(node, ast.IfExp):
        yield from (Edit(*scope.span(node), scope.segment(kept)) for kept in (node.body, node.orelse))


def removed_statement(node: ast.AST, scope: Scope) -> Iterator[Edit]:
    """A call made for its effect, a re-assignment or an update is forgotten."""
    updates = isinstance(node, ast.AugAssign) or (isinstance(node, ast.Expr) and isinstance(node.value, ast.Call))
    if updates or (isinstance(node, ast.Assign) and _is_rebinding(node, scope)):
        assert isinstance(node, ast.stmt)
        yield from _lines(node, node, scope)


def _is_rebinding(node: ast.Assign, scope: Scope) -> bool:
    """True where the name has a value already, so that leaving the line out does not just name an unknown."""
    target = node.targets[0]
    if not isinstance(target, ast.Name):
        return False
    return target.id in scope.parameters or scope.first_stores.get(target.id, node.lineno) < node.lineno


def wrong_return(node: ast.AST, scope: Scope) -> Iterator[Edit]:
    """`return True` → `return False`, `return a, b` → `return b, a`, `return f(a)` → `return a` or `None`."""
    if not isinstance(node, ast.Return) or node.value is None:
        return
    value, place = node.value, scope.span(node.value)
    if isinstance(value, ast.Constant):
        if isinstance(value.value, bool) or value.value is None:
            yield Edit(*place, str(not value.value))
        return
    if isinstance(value, ast.Tuple) and len(value.elts) == 2:
        (start, left_stop), (right_start, stop) = map(scope.span, value.elts)
        gap = scope.text.source[left_stop:right_start]
        yield Edit(start, stop, scope.segment(value.elts[1]) + gap + scope.segment(value.elts[0]))
    if isinstance(value, ast.Call) and len(value.args) == 1 and isinstance(value.args[0], (ast.Name, ast.Call)):
        yield Edit(*place, scope.segment(value.args[0]))
    if isinstance(value, ast.Attribute):
        yield Edit(*place, scope.segment(value.value))
    yield Edit(*place, "None")


def exception(node: ast.AST, scope: Scope) -> Iterator[Edit]:
    """Another exception is caught or raised, one of several is no longer caught, or a handler raises on."""
    if isinstance(node, ast.ExceptHandler):
        caught = node.type
        if isinstance(caught, ast.Tuple) and len(caught.elts) > 1:
            yield Edit(scope.span(caught.elts[-2])[1], scope.span(caught.elts[-1])[1], "")
            yield from (e for element in caught.elts for e in _other_exception(element, scope))
        elif caught is not None:
            yield from _other_exception(caught, scope)
        if len(node.body) == 1 and isinstance(node.body[0], (ast.Pass, ast.Return, ast.Continue)):
            yield Edit(*scope.span(node.body[0]), "raise")
    elif isinstance(node, ast.Raise) and node.exc is not None:
        yield from _other_exception(node.exc.func if isinstance(node.exc, ast.Call) else node.exc, scope)


def _other_exception(node: ast.expr, scope: Scope) -> Iterator[Edit]:
    if isinstance(node, ast.Name) and node.id in _OTHER_EXCEPTION:
        yield Edit(*scope.span(node), _OTHER_EXCEPTION[node.id])


def loop_control(node: ast.AST, scope: Scope) -> Iterator[Edit]:
    """`break` → `continue` and `pass`; `continue` → `break` and `pass`."""
    if isinstance(node, (ast.Break, ast.Continue)):
        other = "continue" if isinstance(node, ast.Break) else "break"
        yield from (Edit(*scope.span(node), text) for text in (other, "pass"))
