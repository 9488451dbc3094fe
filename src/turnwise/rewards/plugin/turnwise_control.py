"""Makes tests fail: each of those named is given one wrong turn.

One of its own assertions comes to ask for something else: another literal, a value in a list of its own, another
exception. What has no such assertion gets a wrong one at its end.

Run as `python -I -S turnwise_control.py FILE` where the tests lie, before any code of the repository runs. FILE holds
JSON, `{"files": [PATH, ...], "ids": [ID, ...], "seed": N}`: the files of tests, the ids of the tests as the task's row
has them, and what the choice among assertions depends on. A file that is no Python of this version stays as it is.
Needs Python 3.6 or later, nothing else.
"""

import ast
import io
import json
import random
import re
import sys
import tokenize
from collections import Counter
from pathlib import Path
from typing import Any, Dict, Iterator, List, NamedTuple, Sequence, Set, Tuple

OF_UNITTEST = re.compile(r"(\w+) \([\w.]+\)")
SPACE = (tokenize.NL, tokenize.COMMENT, tokenize.INDENT, tokenize.DEDENT)
LITERALS = (tokenize.NUMBER, tokenize.STRING)
OTHER = {"True": "False", "False": "True", "None": "0"}
RAISES = frozenset(("raises", "assertRaises", "assertRaisesRegex", "assertRaisesRegexp", "assertRaisesMessage"))
# A statement that calls what, by its name, compares: `self.assertEqual(…)`, `assert_allclose(…)`, `check_output(…)`.
CALL = re.compile(r"(\w+ \. )*(?!\w*not)\w*(assert|check|compare|expect|verify|equal|eq_|same)\w* \(", re.I)
# Beside `==` they make an assertion of which more than one side can be wrong.
LOGIC = frozenset(("and", "or", "not", "if", "lambda", "in", "is", "<", ">", "<=", ">=", "!="))


class Edit(NamedTuple):
    """What stands from one (line, column) of a source to another gives way to a text; lines count from 1."""

    start: Tuple[int, int]
    end: Tuple[int, int]
    text: str


Edits = List[Edit]
Values = Dict[str, List[Any]]  # tokens, by name


def names_of(ids: Sequence[str]) -> Set[str]:
    """What tests are called in their files: the name of the function, or the first line of its docstring.

    >>> sorted(names_of(["t.py::T::test_a[1-x", "test_b (t.T.test_b)", "test_c", "It adds."]))
    ['It adds.', 'test_a', 'test_b', 'test_c']
    """
    matches = ((OF_UNITTEST.match(test_id), test_id) for test_id in ids)
    return {match[1] if match else test_id.split("[")[0].split("::")[-1].strip() for match, test_id in matches}


def made_to_fail(source: str, names: Set[str], chance: random.Random) -> str:
    """The source in which every function of these names takes one wrong turn. Raises SyntaxError for no Python.

    >>> print(made_to_fail("def test_a():\\n    assert f() == 5\\n", {"test_a"}, random.Random(0)), end="")
    def test_a():
        assert f() == 6
    """
    functions = list(_functions(source, names))
    try:
        return _edited(source, [edit for lines in functions for edit in _wrong_turn(lines, chance)])
    except SyntaxError:
        return _edited(source, [edit for lines in functions for edit in _wrong_end(lines, chance)])


def _edited(source: str, edits: Edits) -> str:
    """Raises SyntaxError where what comes out is no Python."""
    lines = list(io.StringIO(source))  # as `tokenize` counts them: a form feed ends none
    for edit in sorted(edits, reverse=True):
        before = lines[edit.start[0] - 1][: edit.start[1]]
        after = lines[edit.end[0] - 1][edit.end[1] :]
        lines[edit.start[0] - 1 : edit.end[0]] = [before + edit.text + after]
    compile("".join(lines), "tests", "exec", dont_inherit=True)
    return "".join(lines)


def _functions(source: str, names: Set[str]) -> Iterator[List[List[Any]]]:
    """The bodies of the functions of these names, as lists of tokens, one for each logical line."""
    tokens = list(tokenize.generate_tokens(io.StringIO(source).readline))
    for place, token in enumerate(tokens):
        if token.type == tokenize.NAME and token.string == "def":
            body = list(_logical_lines(tokens, _after_head(tokens, place)))
            if body and ({tokens[place + 1].string} | _docstring(body[0])) & names:
                yield body


def _after_head(tokens: List[Any], place: int) -> int:
    """The place after the colon that ends the head of a function."""
    depth = 0
    while True:
        place += 1
        if tokens[place].type == tokenize.OP:
            depth += _turn(tokens[place])
            if depth == 0 and tokens[place].string == ":":
                return place + 1


def _turn(token: Any) -> int:
    """1 for an opening bracket, -1 for a closing one, else 0."""
    if token.type != tokenize.OP:
        return 0
    return (token.string in "([{") - (token.string in ")]}")


def _logical_lines(tokens: List[Any], place: int) -> Iterator[List[Any]]:
    """The logical lines of a function whose head ends at a place, each with its NEWLINE."""
    depth = 0
    line: List[Any] = []
    for token in tokens[place:]:
        depth += (token.type == tokenize.INDENT) - (token.type == tokenize.DEDENT)
        if token.type not in SPACE:
            line.append(token)
        if token.type == tokenize.NEWLINE:
            if len(line) > 1:
                yield line
                if depth == 0:  # the body stands in the head's own line
                    return
            line = []
        elif token.type == tokenize.DEDENT and depth == 0:
            return


def _docstring(line: List[Any]) -> Set[str]:
    if line[0].type != tokenize.STRING:
        return set()
    value = ast.literal_eval(line[0].string)
    return {value.strip().splitlines()[0].strip()} if isinstance(value, str) and value.strip() else set()


def _wrong_turn(lines: List[List[Any]], chance: random.Random) -> Edits:
    assigned = _assigned(lines)
    found = [edits for line in lines for edits in _of_line(line[:-1], assigned)]
    named = [edits for edits in found if len(edits) == 1]  # not in a list: that may do for what compares element-wise
    return chance.choice(named or found) if found else _wrong_end(lines, chance)


def _assigned(lines: List[List[Any]]) -> Values:
    """What the names stand for that are assigned once, and used once beside that."""
    uses = Counter(token.string for line in lines for token in line if token.type == tokenize.NAME)
    return {
        line[0].string: line[2:-1]
        for line in lines
        if len(line) > 3 and uses[line[0].string] == 2 and line[0].type == tokenize.NAME and line[1].string == "="
    }


def _of_line(line: List[Any], assigned: Values) -> Iterator[Edits]:
    """The ways in which what one statement asserts can be made wrong."""
    words = [token.string for token in line]
    if words[0] == "assert":
        yield from _of_equation(line[1:], assigned)
    elif CALL.match(" ".join(words)) and words[-1] == ")":
        arguments = list(_split(line[words.index("(") + 1 : -1], ","))
        if len(arguments) > 1 and not {"=", "*", "**"} & {token.string for token in arguments[1]}:
            edits = _otherwise(arguments[1], assigned)
            if len(edits) == 1 or words[0] == "self":
                yield edits
    for place, word in enumerate(words):
        if word in RAISES and words[place + 1 : place + 2] == ["("]:
            yield from _another_exception(line[place + 2 :])


def _of_equation(line: List[Any], assigned: Values) -> Iterator[Edits]:
    equation = next(_split(line, ","))
    sides = list(_split(equation, "=="))
    outside = {token.string for token, depth in _with_depth(equation) if depth == 0}
    if len(sides) == 2 and not outside & LOGIC:
        yield _otherwise(sides[1], assigned)


def _with_depth(tokens: List[Any]) -> Iterator[Tuple[Any, int]]:
    depth = 0
    for token in tokens:
        depth += _turn(token)
        yield token, depth


def _split(tokens: List[Any], at: str) -> Iterator[List[Any]]:
    """The parts between the operators `at` that stand in no brackets, those without a token left out."""
    part: List[Any] = []
    for token, depth in _with_depth(tokens):
        if depth == 0 and token.type == tokenize.OP and token.string == at:
            if part:
                yield part
            part = []
        else:
            part.append(token)
    if part:
        yield part


def _otherwise(value: List[Any], assigned: Values) -> Edits:
    """Another value: with another last literal, else in a list; of a name, where it is assigned."""
    if len(value) == 1:
        value = assigned.get(value[0].string, value)
    literals = [token for token in value if token.type in LITERALS]
    if len(value) == 1 and value[0].string in OTHER:
        return [Edit(value[0].start, value[0].end, OTHER[value[0].string])]
    if literals:
        return [Edit(literals[-1].start, literals[-1].end, _another(literals[-1]))]
    return [Edit(value[0].start, value[0].start, "["), Edit(value[-1].end, value[-1].end, "]")]


def _another(literal: Any) -> str:
    if literal.type == tokenize.NUMBER:
        return repr(ast.literal_eval(literal.string) + 1)
    quotes = 3 if literal.string.endswith(('"""', "'''")) and len(literal.string.lstrip("rRbBuUfF")) > 5 else 1
    return str(literal.string[:-quotes]) + "0" + str(literal.string[-quotes:])


def _another_exception(tokens: List[Any]) -> Iterator[Edits]:
    """Where an exception is named first in brackets, another one is."""
    name = next(_split(tokens, ","))
    ends = [place for place, (_, depth) in enumerate(_with_depth(name)) if depth < 0]
    name = name[: ends[0]] if ends else name
    if name and all(token.type == tokenize.NAME or token.string == "." for token in name):
        yield [Edit(name[0].start, name[-1].end, "BufferError")]


def _wrong_end(lines: List[List[Any]], chance: random.Random) -> Edits:
    """One more statement: before the last one if that returns, else after it."""
    one, other = chance.sample(range(1000), 2)
    by_unittest = any("".join(token.string for token in line[:3]).startswith("self.assert") for line in lines)
    wrong = f"self.assertEqual({one}, {other})" if by_unittest else f"assert {one} == {other}"
    first, last = lines[0][0], lines[-1]
    indentation, end = first.line[: first.start[1]], last[-2].end
    if last[0].string == "return" and last[0].start[1] == first.start[1]:
        return [Edit(last[0].start, last[0].start, wrong + "; ")]
    return [Edit(end, end, ("; " if indentation.strip() else "\n" + indentation) + wrong)]


def main(path: str) -> None:
    """Make the tests fail that a file names."""
    told = json.loads(Path(path).read_text(encoding="utf-8"))
    for name in told["files"]:
        try:
            with Path(name).open("rb") as file:
                encoding = tokenize.detect_encoding(file.readline)[0]
            with Path(name).open(encoding=encoding, newline="") as text:
                source = text.read()
            changed = made_to_fail(source, names_of(told["ids"]), random.Random(told["seed"]))
            with Path(name).open("w", encoding=encoding, newline="") as text:
                text.write(changed)
        except (OSError, SyntaxError, UnicodeError, ValueError, tokenize.TokenError) as error:
            print(f"{name}: not made to fail: {error}")


if __name__ == "__main__":
    main(sys.argv[1])
