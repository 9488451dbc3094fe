"""The issue of a bug as a user would report it, told from what its failing tests called, expected and got."""

import ast
import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from turnwise.types import TestFailure

MAX_CHARS = 500
_VALUE_CHARS, _CODE_CHARS, _MESSAGE_CHARS = 90, 160, 120
# What tests wrap around the thing they test.
_WRAPPER_NAMES = """
    list tuple dict set frozenset sorted len str repr int float bool bytes type isinstance issubclass hasattr getattr
    next iter enumerate range zip map filter sum min max any all print open super raises warns approx partial eval
    exec vars skip fail param StringIO BytesIO OrderedDict Counter defaultdict format join encode decode islice chain
    count
"""
_WRAPPERS = frozenset(_WRAPPER_NAMES.split())
_SYMBOLS = {ast.Eq: "==", ast.Is: "is", ast.NotEq: "!=", ast.In: "in", ast.NotIn: "not in", ast.Lt: "<", ast.Gt: ">"}
_EQUALS = ("assertEqual", "assertEquals", "assertListEqual", "assertDictEqual", "assertTupleEqual", "assertSetEqual")
_SINGLE = {"assertTrue": "True", "assertFalse": "False", "assertIsNone": "None"}
_WRONG = ("`{name}` returns a wrong result", "Wrong result from `{name}`", "`{name}` does not do what it should")
_RAISES = ("`{name}` fails with {error}", "{error} from `{name}`", "`{name}` raises {error}")
_SILENT = ("`{name}` does not raise {error}", "No {error} from `{name}`", "`{name}` should raise {error}")
_RESULT_NAME = re.compile(r"(result|res|actual|got|out|output|ret|rv|roundtrip|round_trip)(_\w+|\d+)?$")
_ADDRESS = re.compile(r" at 0x[0-9a-f]+|(?<=\.\.\.)[0x]*[0-9a-f]{6,}(?=>)")  # the second as reprlib cuts it
_LABELS = (("Expected", "Got"), ("Should give", "Gives"), ("Expected result", "Actual result"))


@dataclass(frozen=True)
class Symptom:
    """What the issue is told from. `code` is what was run; `expected` and `got` are source text or reprs, or empty."""

    code: str
    expected: str = ""
    got: str = ""
    error: str = ""
    missing_error: str = ""
    message: str = ""


def issue_text(failures: Mapping[str, TestFailure], function: str, package_files: Sequence[str]) -> str:
    """The issue for a bug in `function` (a qualified name) from its failing tests, of at most `MAX_CHARS` characters.

    The failure that shows most is told: one whose statement calls the function itself, and says what was expected. The
    wording varies with the tests' ids. No line numbers and none of the package's own source are in it.
    """
    test_id, failure = max(failures.items(), key=lambda item: (_worth(item[1], function), item[0]))
    symptom = read_symptom(failure)
    name = _named(failure, function)
    chance = int.from_bytes(hashlib.sha256(f"{test_id}{function}".encode()).digest()[:4], "big")
    text = "\n".join([_title(symptom, name, chance), "", *_body(failure, symptom, chance, package_files)])
    return text[:MAX_CHARS].rstrip() + "\n"


def _worth(failure: TestFailure, function: str) -> tuple[bool, bool, bool, int]:
    symptom = read_symptom(failure)
    own = function.rpartition(".")[2]
    names = _called_names(failure.statement)
    return failure.phase == "call", own in names, bool(symptom.expected and symptom.got), -len(failure.statement)


def read_symptom(failure: TestFailure) -> Symptom:
    """What was run, expected and got, as far as the failing statement and the message tell."""
    statement = _parsed(failure.statement)
    kind = failure.exception.rpartition(".")[2]
    if kind in ("Failed", "Failure") or "not raised" in failure.message:
        return _silence(failure, statement)
    run, expected, side = _compared(statement)
    if kind != "AssertionError":
        return Symptom(run or failure.statement, expected, error=kind, message=failure.message)
    if not run:
        return Symptom(failure.statement, message=_first_line(failure.message))
    return Symptom(run, expected, _observed(failure.message, side))


def _parsed(statement: str) -> ast.stmt | None:
    try:
        body = ast.parse(statement).body
    except (SyntaxError, ValueError):
        return None
    return body[0] if body else None


def _silence(failure: TestFailure, statement: ast.stmt | None) -> Symptom:
    """An exception was expected and did not come."""
    named = re.search(r"<class '(?:[\w.]*\.)?(\w+)'>|(\w+) not raised|DID NOT RAISE (\w+)", failure.message)
    error = next((word for word in named.groups() if word), "") if named else ""
    if isinstance(statement, ast.With):
        code = "\n".join(ast.unparse(inner) for inner in statement.body)
    else:
        code = failure.statement
    return Symptom(code, missing_error=error or "an exception")


def _compared(statement: ast.stmt | None) -> tuple[str, str, int]:
    """(what was run, what it should give, which side of the comparison ran: 0 or 1); empty texts for other forms."""
    if isinstance(statement, ast.Assert):
        test = statement.test
        if isinstance(test, ast.Compare) and len(test.ops) == 1:
            return _sides(test.left, test.comparators[0], test.ops[0])
        if isinstance(test, ast.UnaryOp) and isinstance(test.op, ast.Not):
            return ast.unparse(test.operand), "something false", 0
        return ast.unparse(test), "something true", 0
    if isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Call):
        call = statement.value
        word = _call_name(call)
        if len(call.args) >= 2 and (word in _EQUALS or word in ("eq_", "assert_equal")):
            return _sides(call.args[0], call.args[1], ast.Eq())
        if call.args and word in _SINGLE:
            return ast.unparse(call.args[0]), _SINGLE[word], 0
    return "", "", 0


def _sides(left: ast.expr, right: ast.expr, op: ast.cmpop) -> tuple[str, str, int]:
    if not isinstance(op, (ast.Eq, ast.Is)):
        return f"{ast.unparse(left)} {_SYMBOLS.get(type(op), 'compared with')} {ast.unparse(right)}", "True", 0
    if (_is_plain(left) and not _is_plain(right)) or (_is_result(right) and not _is_result(left)):
        return ast.unparse(right), ast.unparse(left), 1
    return ast.unparse(left), ast.unparse(right), 0


def _is_plain(node: ast.expr) -> bool:
    """True for an expression that calls nothing of interest."""
    return not any(isinstance(n, ast.Call) and _call_name(n) not in _WRAPPERS for n in ast.walk(node))


def _is_result(node: ast.expr) -> bool:
    """True for a variable whose name says that it holds what came out."""
    return isinstance(node, ast.Name) and _RESULT_NAME.match(node.id) is not None


def _call_name(call: ast.Call) -> str:
    return call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")


def _observed(message: str, side: int) -> str:
    """The value on one side of a failed equality, from the explanation of it; empty where it is not told."""
    first = _first_line(message).removeprefix("AssertionError: ")
    plain = re.match(r"(?:assert )?(.+?) is not (?:true|false|None)$", first)
    if plain:
        return plain[1]
    if first.startswith("assert "):
        sides = first.removeprefix("assert ").split(" == ")
        if len(sides) == 1:
            return sides[0] if re.fullmatch(r"[\w.'\"()\[\]{}, -]*", sides[0]) and " in " not in sides[0] else ""
    else:
        sides = re.sub(r"^\w+ differ: ", "", first).split(" != ")
    # A value that holds the sign itself makes the parting unsure.
    return sides[side] if len(sides) == 2 else ""


def _first_line(message: str) -> str:
    return message.strip().partition("\n")[0].strip()


def _called_names(statement: str) -> list[str]:
    """Names of the calls in a statement that are not wrappers, in the order of the text."""
    tree = _parsed(statement)
    if tree is None:
        return []
    calls = [n for n in ast.walk(tree) if isinstance(n, ast.Call)]
    names = [_call_name(call) for call in sorted(calls, key=lambda call: (call.lineno, call.col_offset))]
    return [n for n in names if n and n not in _WRAPPERS and not n.startswith(("assert", "eq_"))]


def _named(failure: TestFailure, function: str) -> str:
    """The name that the issue gives the fault: the function's own where the test shows it, else what was called."""
    parts = function.split(".")
    own = parts[-1]
    called = _called_names(failure.statement)
    if own in called or (own in [f.function for f in failure.frames] and not own.startswith("_")):
        return own
    owners = [part for part in parts[:-1] if part in called or part in failure.statement]
    return (owners or called or [own])[0]


def _title(symptom: Symptom, name: str, chance: int) -> str:
    titles = _RAISES if symptom.error else _SILENT if symptom.missing_error else _WRONG
    return titles[chance % len(titles)].format(name=name, error=symptom.error or symptom.missing_error)


def _body(failure: TestFailure, symptom: Symptom, chance: int, package_files: Sequence[str]) -> list[str]:
    lines = ["    " + line for line in _cut(symptom.code, _CODE_CHARS).splitlines()]
    used = set(re.findall(r"\w+", symptom.code)) - {"self"}
    shown = {n: v for n, v in failure.variables.items() if n in used and not v.startswith("<")}
    lines += [f"with {name} = {_cut(value, _VALUE_CHARS)}" for name, value in list(shown.items())[:2]]
    if symptom.error:
        tail = [f.function for f in failure.frames if f.file in package_files]
        files = [f.file for f in failure.frames if f.file in package_files]
        lines += ["", *(f"in {function} ({file})" for function, file in list(zip(tail, files, strict=True))[-2:])]
        lines.append(f"{symptom.error}: {_cut(_first_line(symptom.message), _MESSAGE_CHARS)}".rstrip(": "))
    elif symptom.message:
        lines += ["", _cut(symptom.message, _MESSAGE_CHARS)]
    expected, got = _LABELS[chance // 7 % len(_LABELS)]
    if symptom.expected and not symptom.error:
        value = failure.variables.get(symptom.expected, symptom.expected)
        lines += ["", f"{expected}: {_cut(value, _VALUE_CHARS)}"]
    if symptom.got and symptom.got != symptom.code:
        lines.append(f"{got}: {_cut(symptom.got, _VALUE_CHARS)}")
    return lines


def _cut(text: str, limit: int) -> str:
    """Without memory addresses, which differ from run to run, or unprintable characters; not longer than `limit`."""
    text = _ADDRESS.sub("", text.strip())
    text = "".join(c if c.isprintable() or c == "\n" else "?" for c in text)
    return text if len(text) <= limit else text[: limit - 3].rstrip() + "..."
