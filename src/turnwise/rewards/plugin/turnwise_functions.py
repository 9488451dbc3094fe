"""The functions of a Python source as tokens, which stand where they stood in the text. Needs Python 3.6 or later."""

import ast
import io
import re
import tokenize
from typing import Any, Iterator, List, NamedTuple, Sequence, Set, Tuple

OF_UNITTEST = re.compile(r"(\w+) \([\w.]+\)")
SPACE = (tokenize.NL, tokenize.COMMENT, tokenize.INDENT, tokenize.DEDENT)
Tokens = List[Any]


class Function(NamedTuple):
    """A function as it stands in a source: the token of its name, those of its parameters, its logical lines (each with
    its NEWLINE), and the physical lines from its decorators to its end."""

    name: Any
    parameters: Tokens
    lines: List[Tokens]
    first: int
    last: int


def names_of(ids: Sequence[str]) -> Set[str]:
    """What tests are called in their files: the name of the function, or the first line of its docstring.

    >>> sorted(names_of(["t.py::T::test_a[1-x", "test_b (t.T.test_b)", "test_c", "It adds."]))
    ['It adds.', 'test_a', 'test_b', 'test_c']
    """
    matches = ((OF_UNITTEST.match(test_id), test_id) for test_id in ids)
    return {match[1] if match else test_id.split("[")[0].split("::")[-1].strip() for match, test_id in matches}


def functions_in(source: str) -> Iterator[Function]:
    """Every function of a source. Raises SyntaxError or tokenize.TokenError for no Python."""
    tokens = list(tokenize.generate_tokens(io.StringIO(source).readline))
    first, begins = 0, True
    for place, token in enumerate(tokens):
        if token.type in SPACE:
            continue
        if begins:  # a logical line: of a decorator, of a function, or of anything else
            first = first or token.start[0] if token.string in ("@", "def", "async") else 0
        begins = token.type == tokenize.NEWLINE
        if token.type == tokenize.NAME and token.string == "def" and first:
            after = _after_head(tokens, place)
            lines = list(_logical_lines(tokens, after))
            if lines:
                yield Function(tokens[place + 1], tokens[place + 2 : after], lines, first, lines[-1][-1].start[0])
            first = 0


def _after_head(tokens: Tokens, place: int) -> int:
    """The place after the colon that ends the head of a function."""
    depth = 0
    while True:
        place += 1
        if tokens[place].type == tokenize.OP:
            depth += nesting(tokens[place])
            if depth == 0 and tokens[place].string == ":":
                return place + 1


def nesting(token: Any) -> int:
    """1 for an opening bracket, -1 for a closing one, else 0."""
    if token.type != tokenize.OP:
        return 0
    return (token.string in "([{") - (token.string in ")]}")


def _logical_lines(tokens: Tokens, place: int) -> Iterator[Tokens]:
    """The logical lines of a function whose head ends at a place, each with its NEWLINE."""
    depth = 0
    line: Tokens = []
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


def docstring_of(line: Tokens) -> Set[str]:
    """The first line of the docstring that a function's first logical line is, if it is one."""
    if line[0].type != tokenize.STRING:
        return set()
    value = ast.literal_eval(line[0].string)
    return {value.strip().splitlines()[0].strip()} if isinstance(value, str) and value.strip() else set()


def with_depth(tokens: Tokens) -> Iterator[Tuple[Any, int]]:
    """Each token with the number of brackets that are open behind it."""
    depth = 0
    for token in tokens:
        depth += nesting(token)
        yield token, depth


def split(tokens: Tokens, at: str) -> Iterator[Tokens]:
    """The parts between the words or signs `at` that stand in no brackets, those without a token left out."""
    part: Tokens = []
    for token, depth in with_depth(tokens):
        if depth == 0 and token.type in (tokenize.OP, tokenize.NAME) and token.string == at:
            if part:
                yield part
            part = []
        else:
            part.append(token)
    if part:
        yield part
