"""Makes tests ask for something else than before: in each, one assertion is mutated so that a right patch fails it.

An expected literal becomes another of its type, an expected exception another one; where a test has neither, a
condition or an assertion method is negated. Code that passes the test as it was cannot pass it so, unless it makes
tests pass whatever they ask for. The sources are read, never run.
"""

import ast
import random
import re
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass

OTHERS = 20  # of the tests that passed before, in a file
_LINE = re.compile(r"[^\r\n]*(?:\r\n|\r|\n)|[^\r\n]+")
_OF_UNITTEST = re.compile(r"(\w+) \([\w.]+\)")
_CASE = re.compile(r"^\[case (\w+)[^\]\n]*\][ \t]*\n", re.M)
_PAIRS = ("Equal NotEqual", "True False", "In NotIn", "Is IsNot", "IsNone IsNotNone", "Less GreaterEqual",
          "Greater LessEqual", "AlmostEqual NotAlmostEqual", "IsInstance NotIsInstance", "Regex NotRegex")  # fmt: skip
_OPPOSITE = {f"assert{one}": f"assert{other}" for pair in _PAIRS for one, other in (pair.split(), pair.split()[::-1])}
_RAISES = ("raises", "assertRaises", "assertRaisesRegex", "assertRaisesMessage", "assertWarns", "warns")
_EXCEPTIONS = ("EOFError", "BufferError", "RecursionError", "ZeroDivisionError", "StopAsyncIteration")
# A function that, by its name, compares what it is given; so may any function that stands in the tests' own file.
_COMPARES = re.compile(r"assert|check|compare|expect|verify|equal|eq_|same", re.I)
# A call that says whether one thing is like another.
_LIKENS = re.compile(r"equal|same|identical|close|search|match|startswith|endswith", re.I)
# Calls that make a value, and do not ask for one of what is tested.
_MAKERS = ("array", "bytes", "complex", "date", "datetime", "dict", "float", "frozenset", "int", "list", "set", "tuple",
           "approx")  # fmt: skip
_WEIGHTS = {"literal": 2, "exception": 1, "negation": 1}


@dataclass(frozen=True)
class Edit:
    """What stands between two (line, byte) places of a source gives way to a text; lines count from 1."""

    start: tuple[int, int]
    stop: tuple[int, int]
    text: str


@dataclass(frozen=True)
class Mutation:
    """One way to make a test ask for something else; `kind` is a key of `_WEIGHTS`."""

    kind: str
    edits: tuple[Edit, ...]


def test_names(ids: Sequence[str]) -> set[str]:
    """What tests are called in their files: the name of the function, or the first line of its docstring.

    >>> sorted(test_names(["t.py::T::test_a[1-x", "test_b (t.T.test_b)", "It adds."]))
    ['It adds.', 'test_a', 'test_b']
    """
    matches = ((_OF_UNITTEST.match(test_id), test_id) for test_id in ids)
    return {match[1] if match else test_id.split("[")[0].split("::")[-1].strip() for match, test_id in matches}


def mutate_tests(source: str, names: Collection[str], others: Collection[str], chance: random.Random) -> str:
    """The source in which every test of `names` takes a mutation, and so do half of up to `OTHERS` of `others`.

    A test in which nothing can be mutated stays. Raises SyntaxError for no Python.

    >>> mutate_tests("def test_a():\\n    assert f() == 5\\n", {"test_a"}, (), random.Random(1))
    'def test_a():\\n    assert f() == 4\\n'
    """
    tree = ast.parse(source)
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    helpers = {function.name for function in functions}
    fixed = [function for function in functions if _is_named(function, names)]
    passing = [each for each in functions if _is_named(each, others) and each not in fixed]
    chosen = chance.sample(passing, min(OTHERS, len(passing)))[::2]
    for function in sorted((*fixed, *chosen), key=lambda each: each.lineno, reverse=True):
        source = _mutated(source, list(_mutations(function, helpers, chance)), chance)
    return source


def mutate_cases(source: str, names: Collection[str]) -> str:
    """The same for mypy's cases of text: those of these names come to expect a note that is not there."""
    wrong = 'reveal_type(1)  # N: Revealed type is "builtins.bytes"\n'
    return _CASE.sub(lambda case: case[0] + (wrong if case[1] in names else ""), source)


def _is_named(function: ast.FunctionDef | ast.AsyncFunctionDef, names: Collection[str]) -> bool:
    first = (ast.get_docstring(function) or "").partition("\n")[0].strip()
    return function.name in names or (bool(first) and first in names)


def _mutated(source: str, mutations: list[Mutation], chance: random.Random) -> str:
    """The source with one of the mutations: the first, in an order of chance, that leaves it Python.

    A negation is taken where there is nothing else: what is equal to everything fails a negated comparison, as what is
    right does.
    """
    keys = {id(each): (each.kind != "negation", chance.random() ** (1 / _WEIGHTS[each.kind])) for each in mutations}
    for mutation in sorted(mutations, key=lambda each: keys[id(each)], reverse=True):
        changed = _edited(source, mutation.edits)
        try:
            ast.parse(changed)
        except SyntaxError:
            continue
        return changed
    return source


def _edited(source: str, edits: Sequence[Edit]) -> str:
    lines = [line.encode() for line in _LINE.findall(source)]
    for edit in sorted(edits, key=lambda each: each.start, reverse=True):
        (first, left), (last, right) = edit.start, edit.stop
        joined = lines[first - 1][:left] + edit.text.encode() + lines[last - 1][right:]
        lines[first - 1 : last] = [joined, *[b""] * (last - first)]
    return b"".join(lines).decode()


def _mutations(
    function: ast.FunctionDef | ast.AsyncFunctionDef, helpers: Collection[str], chance: random.Random
) -> Iterator[Mutation]:
    scope = _Scope(function, chance)
    for node in ast.walk(function):
        if isinstance(node, ast.Assert):
            yield from scope.of_condition(node.test)
            yield Mutation("negation", (_negated(node.test),))
        elif isinstance(node, ast.Call):
            yield from _of_call(node, helpers, scope)


def _of_call(call: ast.Call, helpers: Collection[str], scope: "_Scope") -> Iterator[Mutation]:
    name = _called(call)
    if name in _RAISES and call.args:
        yield from scope.of_exception(call)
    elif name in _OPPOSITE and isinstance(call.func, ast.Attribute):
        end = (call.func.end_lineno or 0, call.func.end_col_offset or 0)
        yield Mutation("negation", (Edit((end[0], end[1] - len(name)), end, _OPPOSITE[name]),))
        yield from scope.of_sides(call.args[:2])
        if len(call.args) == 1 or name in ("assertTrue", "assertFalse"):
            yield from scope.of_condition(call.args[0])
    elif call.args and (_COMPARES.search(name) or name in helpers):
        yield from scope.of_sides(call.args[:2] if len(call.args) < 3 else call.args)


class _Scope:
    """What the values in a test function stand for, and how they can become others."""

    def __init__(self, function: ast.FunctionDef | ast.AsyncFunctionDef, chance: random.Random) -> None:
        self._chance = chance
        self._assigned: dict[str, list[ast.expr]] = {}
        self._columns = dict(_parameters(function))
        for node in ast.walk(function):
            if isinstance(node, ast.Assign) and len(node.targets) == 1 and isinstance(node.targets[0], ast.Name):
                self._assigned.setdefault(node.targets[0].id, []).append(node.value)

    def of_condition(self, test: ast.expr) -> Iterator[Mutation]:
        """Mutations of what a condition compares with."""
        if isinstance(test, ast.BoolOp) and isinstance(test.op, ast.And):
            for value in test.values:
                yield from self.of_condition(value)
        if isinstance(test, ast.Compare) and isinstance(test.ops[0], ast.Eq | ast.Is | ast.In):
            yield from self.of_sides([test.left, test.comparators[0]])
        if isinstance(test, ast.Compare) and isinstance(test.ops[0], ast.Lt | ast.LtE):
            yield from self.of_sides(_difference(test.left))
        if isinstance(test, ast.Call) and _LIKENS.search(_called(test)):
            subject = [test.func.value] if isinstance(test.func, ast.Attribute) else []
            yield from self.of_sides(test.args[:2] if len(test.args) > 1 else [*subject, *test.args])

    def of_sides(self, sides: Sequence[ast.expr]) -> Iterator[Mutation]:
        """Mutations of the side that says what is expected: the last one that calls nothing of what is tested."""
        plain = [side for side in sides if not any(_asks(node) for node in ast.walk(side))]
        if len(sides) > 1 and plain:
            yield from self._of_value(plain[-1])

    def of_exception(self, call: ast.Call) -> Iterator[Mutation]:
        """Another exception is expected, or another message."""
        yield Mutation("exception", (_replaced(call.args[0], self._chance.choice(_EXCEPTIONS)),))
        for keyword in call.keywords:
            if keyword.arg == "match":
                yield from self._of_value(keyword.value)

    def _of_value(self, value: ast.expr) -> Iterator[Mutation]:
        if isinstance(value, ast.Name) and value.id in self._columns:
            edits = [edit for cell in self._columns[value.id] for edit in self._literals(cell)[-1:]]
            if edits:
                yield Mutation("literal", tuple(edits))
        elif isinstance(value, ast.Name) and len(self._assigned.get(value.id, ())) == 1:
            yield from (Mutation("literal", (edit,)) for edit in self._literals(self._assigned[value.id][0]))
        else:
            yield from (Mutation("literal", (edit,)) for edit in self._literals(value))

    def _literals(self, value: ast.expr) -> list[Edit]:
        """Edits of the literals of a value, but for those that a call of what is tested gets."""
        if any(_asks(node) for node in ast.walk(value)):
            return []
        inside_text = {
            id(part) for node in ast.walk(value) if isinstance(node, ast.JoinedStr) for part in ast.walk(node)
        }
        constants = [node for node in ast.walk(value) if isinstance(node, ast.Constant) and id(node) not in inside_text]
        return [_replaced(node, text) for node in constants if (text := _other(node.value, self._chance))]


def _parameters(function: ast.FunctionDef | ast.AsyncFunctionDef) -> Iterator[tuple[str, list[ast.expr]]]:
    """The parameters that `pytest.mark.parametrize` gives a test, each with the values that it lists for it."""
    for decorator in function.decorator_list:
        if not (isinstance(decorator, ast.Call) and _called(decorator) == "parametrize" and len(decorator.args) > 1):
            continue
        names, values = _argument_names(decorator.args[0]), decorator.args[1]
        rows = values.elts if isinstance(values, ast.List | ast.Tuple) else []
        cells = [_cells(row, len(names)) for row in rows]
        for index, name in enumerate(names):
            yield name, [row[index] for row in cells if len(row) == len(names)]


def _argument_names(node: ast.expr) -> list[str]:
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return [name.strip() for name in node.value.split(",") if name.strip()]
    names = node.elts if isinstance(node, ast.List | ast.Tuple) else []
    return [str(name.value) for name in names if isinstance(name, ast.Constant)]


def _cells(row: ast.expr, count: int) -> list[ast.expr]:
    if isinstance(row, ast.Call) and _called(row) == "param":
        return list(row.args)
    return list(row.elts) if count > 1 and isinstance(row, ast.List | ast.Tuple) else [row]


def _difference(value: ast.expr) -> list[ast.expr]:
    """Both sides of the difference in `abs(one - other)`; empty for any other value."""
    inner = value.args[0] if isinstance(value, ast.Call) and _called(value) == "abs" and len(value.args) == 1 else None
    return [inner.left, inner.right] if isinstance(inner, ast.BinOp) and isinstance(inner.op, ast.Sub) else []


def _called(call: ast.Call) -> str:
    """The last name of what is called."""
    return call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")


def _asks(node: ast.AST) -> bool:
    """Whether a node calls what may be tested."""
    makes = isinstance(node, ast.Call) and (_called(node) in _MAKERS or _called(node)[:1].isupper())
    return isinstance(node, ast.Call | ast.Await) and not makes


def _negated(test: ast.expr) -> Edit:
    if isinstance(test, ast.UnaryOp) and isinstance(test.op, ast.Not):
        return Edit((test.lineno, test.col_offset), (test.operand.lineno, test.operand.col_offset), "")
    return _replaced(test, f"not ({ast.unparse(test)})")


def _replaced(node: ast.expr, text: str) -> Edit:
    return Edit((node.lineno, node.col_offset), (node.end_lineno or 0, node.end_col_offset or 0), text)


def _other(value: object, chance: random.Random) -> str:
    """The source of another value of the same type; empty for None and the ellipsis, of which there is one each.

    >>> _other(True, random.Random(0)), _other(5, random.Random(0)), _other("ab", random.Random(0))
    ('False', '6', "'abb'")
    """
    make: dict[type, Callable[[], object]] = {
        bool: lambda: not value,
        int: lambda: value + chance.choice((-1, 1)),  # type: ignore[operator]
        float: lambda: value + max(1.0, abs(value) / 10),  # type: ignore[arg-type,operator]
        complex: lambda: value + 1,  # type: ignore[operator]
        str: lambda: value + (value[-1:] or "a"),  # type: ignore[index,operator]
        bytes: lambda: value + (value[-1:] or b"a"),  # type: ignore[index,operator]
    }
    found = make.get(type(value))
    return "" if found is None else repr(found())
