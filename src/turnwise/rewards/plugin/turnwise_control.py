"""Makes tests fail: those that are to be fixed, some of those that passed before, and copies of both.

A test is made to fail by one wrong turn: one of its own assertions comes to ask for something else (another literal,
another value for what a name stands for, another exception), or a wrong one stands at its end. Copies take further
turns; their names end in `__turn` and a number.

Run as `python -E -s -S turnwise_control.py FILE` where the tests lie, before any code of the repository runs. FILE is
JSON, `{"files": [PATH, ...], "ids": [ID, ...], "others": [ID, ...], "seed": N}`: the files of tests, the ids of those
to be fixed and of those that passed before, as the task's row has them, and what the choice among tests and turns
depends on. It comes to hold a list of the names of all that took a turn themselves, as `names_of` gives them. A file
that is no Python of this version stays as it is; one that does not end in ".py" has cases of mypy's. Needs Python 3.6
or later, and of ours the module of functions beside it.
"""

import ast
import io
import json
import random
import re
import sys
import tokenize
from collections import Counter
from itertools import cycle, islice
from pathlib import Path
from typing import Any, Iterator, List, NamedTuple, Set, Tuple

from turnwise_functions import Function, Tokens, docstring_of, functions_in, names_of, nesting, split, with_depth

# Copies in a file, and of a test to be fixed; and how many turns that takes at least.
COPIES, COPIES_OF_ONE, TURNS_OF_ONE = 100, 7, 5
OTHERS = 20  # of the tests that passed before, in a file
CASE = re.compile(r"^\[case (\w+)[^\]\n]*\][ \t]*\n", re.M)
LITERALS = (tokenize.NUMBER, tokenize.STRING)
OTHER = {"True": "False", "False": "True", "None": "..."}
RAISES = frozenset(("raises", "assertRaises", "assertRaisesRegex", "assertRaisesRegexp", "assertRaisesMessage"))
# What is compared is their first argument with what they say themselves, if with anything; then comes a message.
OF_ONE = frozenset(("assertTrue", "assertFalse", "assertIsNone", "assertIsNotNone", "assert_", "assert_true"))
OF_MOCKS = re.compile(r"assert_(any_call|(called|awaited)(_once)?_with|has_(calls|awaits))")
# A statement that calls what, by its name, compares: `self.assertEqual(…)`, `assert_allclose(…)`, `check_output(…)`.
CALL = re.compile(
    r"(\w+ \. )*(?!\w*(not|raises|warns|logs))\w*(assert|check|compare|expect|verify|equal|eq_|same)\w* \(", re.I
)
LIKE = re.compile(r"equal|same|identical|close|search|match|startswith|endswith|hasattr", re.I)
HELP = re.compile(r"(self \. )?\w+ \( .* \)$")
COMPARISONS = ("==", "in", "is")
# Beside a comparison they make an assertion of which more than one side can be wrong.
LOGIC = frozenset(("or", "not", "if", "lambda", "<", ">", "<=", ">=", "!="))
KEYWORDS = frozenset(("and", "or", "not", "in", "is", "if", "else", "assert", "return", "lambda", "yield", "await"))
# What is called to make a value, beside classes: not what is tested.
MAKERS = frozenset(
    ("array", "bytes", "complex", "date", "datetime", "dict", "float", "frozenset", "int", "list", "set")
)


class Edit(NamedTuple):
    """What stands from one (line, column) of a source to another gives way to a text; lines count from 1."""

    start: Tuple[int, int]
    end: Tuple[int, int]
    text: str


Edits = List[Edit]


def made_to_fail(source: str, names: Set[str], others: Set[str], chance: random.Random) -> Tuple[str, Set[str]]:
    """The source in which the functions of these names, and some of `others`, take a wrong turn each, with copies
    behind them that take other turns, and behind others; and the names of all that took one themselves. Raises
    SyntaxError for no Python.

    >>> changed, turned = made_to_fail("def test_a(): assert f() == 5\\n", {"test_a"}, set(), random.Random(0))
    >>> changed.split("\\n")[:2]
    ['def test_a(): assert f() == 6', 'def test_a__turn1(): assert f() == 5; assert 864 == 394']
    """
    lines = list(io.StringIO(source))  # as `tokenize` counts them: a form feed ends none
    functions = list(functions_in(source))
    helpers = {function.name.string for function in functions}
    fixed = [function for function in functions if _names(function) & names]
    passing = [function for function in functions if _names(function) & (others - names)]
    most = max(1, min(COPIES_OF_ONE, COPIES // max(1, len(fixed))))
    edits: Edits = []
    for function in fixed:
        own, *copied = list(islice(_turns(lines, function, helpers, chance), most + 1)) or [[]]
        edits += [*own, *_copies(lines, function, copied)]
    passing = chance.sample(passing, min(OTHERS, len(passing)))
    turned = passing[: len(passing) // 2]  # the rest stays, for what has a test that passes stand for one that fails
    for function in passing:
        found = list(islice(_turns(lines, function, helpers, chance), 1))
        edits += [edit for turn in found for edit in turn] if function in turned else _copies(lines, function, found)
    changed = "".join(_edited(lines, edits))
    compile(changed, "tests", "exec", dont_inherit=True)
    return changed, {name for function in (*fixed, *turned) for name in _names(function)}


def cases_made_to_fail(source: str, names: Set[str]) -> Tuple[str, Set[str]]:
    """As `made_to_fail`, for mypy's cases of text: those of these names come to expect an error that is not there.

    >>> cases_made_to_fail("[case testA]\nx = 1\n", {"testA"})
    ('[case testA]\nturned = 0  # E: Turned\nx = 1\n', {'testA'})
    """
    turned = {name for name in CASE.findall(source) if name in names}
    wrong = "turned = 0  # E: Turned\n"
    return CASE.sub(lambda case: case[0] + (wrong if case[1] in turned else ""), source), turned


def _names(function: Function) -> Set[str]:
    names: Set[str] = {function.name.string} | docstring_of(function.lines[0])
    return names


def _edited(lines: List[str], edits: Edits) -> List[str]:
    """As many texts as there were lines, less those that an edit joins."""
    lines = list(lines)
    for edit in sorted(edits, reverse=True):
        before = lines[edit.start[0] - 1][: edit.start[1]]
        after = lines[edit.end[0] - 1][edit.end[1] :]
        lines[edit.start[0] - 1 : edit.end[0]] = [before + edit.text + after]
    return lines


def _text(lines: List[str], function: Function, edits: Edits) -> str:
    """The function alone, edited."""
    edited = _edited(lines, edits)
    return "".join(edited[function.first - 1 : function.last + len(edited) - len(lines)])


def _copies(lines: List[str], function: Function, turns: List[Edits]) -> Edits:
    """What puts a copy for each turn behind the function."""
    name, end = function.name, (function.last, len(lines[function.last - 1]))
    texts = []
    for number, turn in enumerate(turns, 1):
        renamed = Edit(name.start, name.end, f"{name.string}__turn{number}")
        texts.append(_text(lines, function, [renamed, *turn]).rstrip("\n") + "\n")
    start = "" if lines[function.last - 1].endswith("\n") else "\n"
    return [Edit(end, end, start + "".join(texts))] if texts else []


def _turns(lines: List[str], function: Function, helpers: Set[str], chance: random.Random) -> Iterator[Edits]:
    """The wrong turns that the function can take, the most telling first, in an order of chance; a wrong end second."""
    found = [edits for line in function.lines for edits in Asked(function, helpers).of_line(line[:-1])]
    chance.shuffle(found)
    found.sort(key=len)  # a pair of edits wraps a value, which may do for what compares element-wise
    turns = [*found[:1], _wrong_end(function, chance), *found[1:]]
    turns += islice(cycle(found), max(0, TURNS_OF_ONE - len(turns)))  # for what passes by chance alone
    for edits in turns:
        try:
            compile("if 1:\n " + _text(lines, function, edits).replace("\n", "\n "), "test", "exec", dont_inherit=True)
        except (SyntaxError, ValueError):
            continue
        yield edits


class Asked:
    """What the assertions of a function ask for, and how that can be made another thing.

    `helpers` are names of functions beside it, which may assert for it what they are given last.
    """

    def __init__(self, function: Function, helpers: Set[str]) -> None:
        self._helpers = helpers
        uses = Counter(token.string for line in function.lines for token in line if token.type == tokenize.NAME)
        self._parameters = {token.string for token, depth in with_depth(function.parameters) if depth == 1}
        bodies = [line for line in function.lines if not docstring_of(line)] or function.lines
        self._first = bodies[0][0]
        # What the names stand for that are assigned once, and used once beside that.
        self._assigned = {
            line[0].string: line[2:-1]
            for line in function.lines
            if len(line) > 3 and uses[line[0].string] == 2 and line[0].type == tokenize.NAME and line[1].string == "="
        }

    def of_line(self, line: Tokens) -> Iterator[Edits]:
        """The turns of one statement."""
        words = [token.string for token in line]
        if words[0] == "assert":
            yield from self._of_condition(next(split(line[1:], ",")))
        elif CALL.match(" ".join(words)) and words[-1] == ")":
            yield from self._of_call(line, words.index("("))
        elif HELP.match(" ".join(words)) and words[words.index("(") - 1] in self._helpers:
            yield from _other_literals(list(split(line[words.index("(") + 1 : -1], ","))[-1])
        asks = bool({"raises", "warns", *RAISES} & set(words))
        for place, word in enumerate(words):
            if word in RAISES and words[place + 1 : place + 2] == ["("]:
                yield from _another_exception(line[place + 2 :])
            if asks and word == "match" and words[place + 1 : place + 2] == ["="]:
                yield from _other_literals(line[place + 2 : place + 3])

    def _of_condition(self, condition: Tokens) -> Iterator[Edits]:
        near = _difference(condition)
        if near:
            yield from self._otherwise(_expected(*near))
        elif not LOGIC & {token.string for token, depth in with_depth(condition) if depth == 0}:
            for part in split(condition, "and"):
                yield from self._of_comparison(part)

    def _of_comparison(self, part: Tokens) -> Iterator[Edits]:
        signs = [token.string for token, depth in with_depth(part) if depth == 0 and token.string in COMPARISONS]
        sides = list(split(part, signs[0])) if len(signs) == 1 else []
        if len(sides) == 2:
            yield from self._otherwise(_expected(*sides))
        elif not signs and part[-1].string == ")":
            yield from self._of_likeness(part)

    def _of_likeness(self, part: Tokens) -> Iterator[Edits]:
        """The turns of a call that says whether one thing is like another: `same(f(1), 5)`, `f(1).equals(Number(5))`.

        Only where a name says so: else what is turned might be asked of what is tested, and right fixes may differ.
        """
        start = max(place for place, (token, depth) in enumerate(with_depth(part)) if depth == 1 and nesting(token) > 0)
        subject, arguments = part[:start], list(split(part[start + 1 : -1], ","))
        sides = [subject, *arguments] if len(arguments) == 1 else arguments[:2]
        if subject and LIKE.search(subject[-1].string) and len(sides) == 2 and any(map(_calls, sides)):
            found = list(_other_literals(_expected(*sides)))
            yield from found if len(found) == 1 else ()  # of several, one of them may do

    def _of_call(self, line: Tokens, bracket: int) -> Iterator[Edits]:
        name, arguments = line[bracket - 1].string, list(split(line[bracket + 1 : -1], ","))
        plain = [each for each in arguments if not {"=", "*", "**"} & {token.string for token in each}]
        if OF_MOCKS.fullmatch(name):
            for argument in arguments:
                yield from _other_literals(argument)
        elif name in OF_ONE:
            yield from self._of_condition(plain[0] if plain else [])
        elif len(plain) > 1:
            for edits in self._otherwise(_expected(*plain[:2])):
                if len(edits) == 1 or line[0].string == "self":
                    yield edits

    def _otherwise(self, value: Tokens) -> Iterator[Edits]:
        """Other values: with another literal, else as a part of something; of a name, where it comes from."""
        name = value[0].string if len(value) == 1 else ""
        value = self._assigned.get(name, value)
        if len(value) == 1 and value[0].string in OTHER:
            yield [Edit(value[0].start, value[0].end, OTHER[value[0].string])]
            return
        found = list(_other_literals(value))
        yield from found
        indentation = self._first.line[: self._first.start[1]]
        if not found and name in self._parameters and not indentation.strip():
            start = self._first.start[0], 0
            yield [Edit(start, start, f"{indentation}{name} = ({name}, object())\n")]
        elif not found:
            yield [Edit(value[0].start, value[0].start, "("), Edit(value[-1].end, value[-1].end, ", object())")]


def _difference(condition: Tokens) -> List[Tokens]:
    """Both sides of the difference in `abs(one - other) < bound`; empty for any other condition."""
    sides = list(split(condition, "<"))
    words = [token.string for token in sides[0]] if len(sides) == 2 else []
    parts = list(split(sides[0][2:-1], "-")) if words[:2] == ["abs", "("] and words[-1] == ")" else []
    return parts if len(parts) == 2 else []


def _expected(one: Tokens, other: Tokens) -> Tokens:
    """The side of a comparison that says what is wanted: the second, but where only that one calls what is tested."""
    return one if _calls(other) and not _calls(one) else other


def _calls(value: Tokens) -> bool:
    return any(tested for _, tested in _in_calls(value))


def _in_calls(value: Tokens) -> Iterator[Tuple[Any, bool]]:
    """The tokens, and whether each is an argument of a call, or an index: not of a call that makes a value."""
    inside: List[bool] = []
    before = ""
    for token in value:
        if nesting(token) < 0 and inside:
            inside.pop()
        if nesting(token) > 0:
            named = (before.isidentifier() and before not in KEYWORDS) or before in (")", "]")
            made = before in MAKERS or before[:1].isupper()
            inside.append(token.string in "([" and named and not made)
        yield token, any(inside)
        before = token.string


def _other_literals(value: Tokens) -> Iterator[Edits]:
    for token, tested in _in_calls(value):
        if token.type in LITERALS and not tested:
            yield [Edit(token.start, token.end, _another(token))]


def _another(literal: Any) -> str:
    if literal.type == tokenize.NUMBER:
        return repr(ast.literal_eval(literal.string) + 1)
    quotes = 3 if literal.string.endswith(('"""', "'''")) and len(literal.string.lstrip("rRbBuUfF")) > 5 else 1
    return str(literal.string[:-quotes]) + "0" + str(literal.string[-quotes:])


def _another_exception(tokens: Tokens) -> Iterator[Edits]:
    """Where an exception is named first in brackets, another one is."""
    name = next(split(tokens, ","))
    ends = [place for place, (_, depth) in enumerate(with_depth(name)) if depth < 0]
    name = name[: ends[0]] if ends else name
    if name and all(token.type == tokenize.NAME or token.string == "." for token in name):
        yield [Edit(name[0].start, name[-1].end, "BufferError")]


def _wrong_end(function: Function, chance: random.Random) -> Edits:
    """One more statement: before the last one if that returns, else after it."""
    lines = function.lines
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
    names, others = names_of(told["ids"]), names_of(told["others"])
    turned: Set[str] = set()
    for name in told["files"]:
        try:
            with Path(name).open("rb") as file:
                encoding = tokenize.detect_encoding(file.readline)[0]
            with Path(name).open(encoding=encoding, newline="") as text:
                source = text.read()
            if name.endswith(".py"):
                changed, found = made_to_fail(source, names, others, random.Random(told["seed"]))
            else:
                changed, found = cases_made_to_fail(source, names)
            turned |= found
            with Path(name).open("w", encoding=encoding, newline="") as text:
                text.write(changed)
        except (OSError, SyntaxError, UnicodeError, ValueError, tokenize.TokenError) as error:
            print(f"{name}: not made to fail: {error}")
    Path(path).write_text(json.dumps(sorted(turned)), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1])
