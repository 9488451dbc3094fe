"""Endless fresh bugs: a line of a function with one token changed, swapped, dropped or doubled, or the line gone.

They are cruder than the mutations that tasks are made from, and there is no end of them: what a model learns from them
is to tell a line that it remembers from one that it does not.
"""

import io
import random
import tokenize
from functools import cache

from corpus import Function, SourceFile

from turnwise.tasks.mutate import Mutant

_CHANGEABLE = (tokenize.NAME, tokenize.NUMBER, tokenize.OP, tokenize.STRING)


def corrupt(function: Function, rng: random.Random) -> Mutant | None:
    """One bug in a line that the function's view shows; None where the draw made nothing new.

    The view must show code (`shows_code`).
    """
    tokens, shown = _tokens(function.file), _shown(function)
    number = rng.choice([number for number in shown if number in tokens])
    line = function.file.lines[number - 1]
    changed = "" if rng.random() < 0.1 else _changed(line, tokens[number], _vocabulary(tokens, shown), rng)
    mutated = changed + "\n" if changed else ""
    if changed in (None, line) or (number, mutated) in function.shipped:
        return None
    return Mutant(
        "corruption", function.qualname, number, number, line + "\n", mutated, function.lineno, function.end_lineno
    )


def _changed(
    line: str, tokens: list[tokenize.TokenInfo], vocabulary: dict[int, list[str]], rng: random.Random
) -> str | None:
    at = rng.randrange(len(tokens))
    token, draw = tokens[at], rng.random()
    (_, start), (_, stop) = token.start, token.end
    if draw < 0.6:
        return line[:start] + rng.choice(vocabulary[token.type]) + line[stop:]
    if draw < 0.75:
        other = rng.choice(tokens)
        first, last = sorted((token, other), key=lambda each: each.start)
        between = line[first.end[1] : last.start[1]]
        return line[: first.start[1]] + last.string + between + first.string + line[last.end[1] :]
    if draw < 0.9:
        return (line[:start] + line[stop:]).rstrip() if len(tokens) > 1 else None
    return line[:stop] + " " + token.string + line[stop:]


def shows_code(function: Function) -> bool:
    """Whether the view of the function gets past its docstring."""
    return any(number in _tokens(function.file) for number in _shown(function))


def _shown(function: Function) -> range:
    return range(function.lineno + 1, min(function.end_lineno, function.last_shown) + 1)


@cache
def _tokens(file: SourceFile) -> dict[int, list[tokenize.TokenInfo]]:
    """By line number, the tokens to change; only lines of code, no docstring and no comment."""
    found: dict[int, list[tokenize.TokenInfo]] = {}
    for token in tokenize.generate_tokens(io.StringIO("\n".join(file.lines)).readline):
        if token.type in _CHANGEABLE and token.start[0] == token.end[0]:
            found.setdefault(token.start[0], []).append(token)
    return {number: tokens for number, tokens in found.items() if any(t.type != tokenize.STRING for t in tokens)}


def _vocabulary(tokens: dict[int, list[tokenize.TokenInfo]], shown: range) -> dict[int, list[str]]:
    vocabulary: dict[int, list[str]] = {tokenize.OP: ["<", "<=", ">", ">=", "==", "!=", "+", "-", "*", "/"]}
    vocabulary[tokenize.NUMBER] = ["0", "1", "2", "-1"]
    vocabulary[tokenize.NAME] = ["not", "and", "or", "is", "in", "None", "True", "False", "pass", "continue", "break"]
    vocabulary[tokenize.STRING] = ["''"]
    for number in shown:
        for token in tokens.get(number, ()):
            vocabulary[token.type].append(token.string)
    return vocabulary
