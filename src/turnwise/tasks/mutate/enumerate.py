"""Every mutant of a source file, each checked to compile."""

import ast
from collections.abc import Callable, Collection, Iterator, Mapping
from types import MappingProxyType

from turnwise.tasks.mutate import expressions, names, statements
from turnwise.tasks.mutate.mutant import Edit, Mutant
from turnwise.tasks.mutate.scope import FunctionNode, Scope, SourceText

Operator = Callable[[ast.AST, Scope], Iterator[Edit]]

_OPERATORS: Mapping[str, Operator] = MappingProxyType(
    {
        "comparison": expressions.comparison,
        "boundary": expressions.boundary,
        "arithmetic": expressions.arithmetic,
        "boolean": expressions.boolean,
        "constant": expressions.constant,
        "off_by_one": expressions.off_by_one,
        "swapped_arguments": names.swapped_arguments,
        "dropped_argument": names.dropped_argument,
        "wrong_variable": names.wrong_variable,
        "wrong_call": names.wrong_call,
        "removed_guard": statements.removed_guard,
        "removed_branch": statements.removed_branch,
        "removed_statement": statements.removed_statement,
        "wrong_return": statements.wrong_return,
        "exception": statements.exception,
        "loop_control": statements.loop_control,
    }
)

KINDS: tuple[str, ...] = tuple(_OPERATORS)


def enumerate_mutants(
    source: str, kinds: Collection[str] = KINDS, max_function_lines: int | None = None
) -> list[Mutant]:
    """All small bugs of these `kinds` in the functions of a file, in the order of the text.

    With `max_function_lines` longer functions are passed over.

    Raises SyntaxError when the source does not parse.

    >>> [m.mutated.strip() for m in enumerate_mutants("def f(a, b):\\n    return a < b\\n", ["boundary"])]
    ['return a <= b']
    """
    text = SourceText(source)
    mutants: list[Mutant] = []
    for qualname, function, outermost in _functions(ast.parse(source), "", None):
        assert function.end_lineno is not None
        if max_function_lines and function.end_lineno - function.lineno >= max_function_lines:
            continue
        piece = _Piece(text, outermost)
        for node_kind, edit in _edits(Scope(text, function), kinds):
            if piece.compiles_changed(edit):
                mutants.append(_mutant(text, node_kind, qualname, function, edit))
    unique = {(m.lineno, m.end_lineno, m.mutated): m for m in reversed(mutants)}
    return sorted(unique.values(), key=lambda m: (m.lineno, m.end_lineno, m.kind, m.mutated))


def outermost_function(source: str, lineno: int) -> str:
    """The qualified name of the outermost function or method that holds a line (1-based), "" where there is none.

    >>> outermost_function("class C:\\n    def f(self):\\n        def g(): ...\\n", 3)
    'C.f'
    """
    for qualname, function, outermost in _functions(ast.parse(source), "", None):
        assert function.end_lineno is not None
        if function is outermost and function.lineno <= lineno <= function.end_lineno:
            return qualname
    return ""


def _functions(
    node: ast.AST, prefix: str, outermost: FunctionNode | None
) -> Iterator[tuple[str, FunctionNode, FunctionNode]]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef)):
            top = outermost or child
            yield prefix + child.name, child, top
            yield from _functions(child, f"{prefix}{child.name}.", top)
        elif isinstance(child, ast.ClassDef):
            yield from _functions(child, f"{prefix}{child.name}.", outermost)
        else:
            yield from _functions(child, prefix, outermost)


def _edits(scope: Scope, kinds: Collection[str]) -> Iterator[tuple[str, Edit]]:
    for node in scope.nodes:
        for kind, operator in _OPERATORS.items():
            if kind in kinds:
                yield from ((kind, edit) for edit in operator(node, scope))


class _Piece:
    """The outermost function around an edit: compiling it alone costs little, however long its file is."""

    def __init__(self, text: SourceText, function: FunctionNode) -> None:
        first = min([function.lineno, *(d.lineno for d in function.decorator_list)])
        assert function.end_lineno is not None
        self._start = text.line_start(first)
        self._code = text.source[self._start : text.line_start(function.end_lineno + 1)]
        self._header = "if True:\n" if function.col_offset else ""

    def compiles_changed(self, edit: Edit) -> bool:
        """True where the edited function is another one and compiles."""
        changed = Edit(edit.start - self._start, edit.stop - self._start, edit.text).apply(self._code)
        if changed == self._code:
            return False
        try:
            compile(self._header + changed, "<mutant>", "exec", dont_inherit=True)
        except SyntaxError:
            return False
        return True


def _mutant(text: SourceText, kind: str, qualname: str, function: FunctionNode, edit: Edit) -> Mutant:
    first = text.lineno(edit.start)
    last = text.lineno(max(edit.start, edit.stop - 1))
    start, stop = text.line_start(first), min(text.line_start(last + 1), len(text.source))
    original = text.source[start:stop]
    mutated = Edit(edit.start - start, edit.stop - start, edit.text).apply(original)
    assert function.end_lineno is not None
    return Mutant(kind, qualname, first, last, original, mutated, function.lineno, function.end_lineno)
