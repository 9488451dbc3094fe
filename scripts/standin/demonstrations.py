"""Scripted episodes in the scaffold's exact words: how a repair goes, and how a careless one goes wrong.

What the tools would print is rendered here without a sandbox; a test replays demonstrations in a real one.
"""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from corpus import Function
from corruptions import corrupt

from turnwise.agent.observation import FORMAT_ERROR_TEXTS, prompt_line
from turnwise.tasks.mutate import Mutant
from turnwise.types import FormatError

WORKDIR = "/testbed"
AROUND_EDIT_LINES = 2  # what the edit tool shows
AROUND_BUG_LINES = 2  # what a repair writes anew
PLACE = "It is about line "


@dataclass(frozen=True)
class Exchange:
    """One response and the observation that follows it; the last one of an episode has none."""

    response: str
    observation: str | None


@dataclass(frozen=True)
class Carelessness:
    """How often a demonstration errs, each a probability.

    Per turn: `format_error` writes no command block or two of them; `detour` spends a turn on something useless. Per
    episode: `wrong_line` mends some line of the function, sound or not, which `second_try` follows by the right one;
    `early_submit` submits before any edit; `no_submit` wanders off after the edit and never submits.
    """

    format_error: float = 0.0
    detour: float = 0.0
    wrong_line: float = 0.0
    second_try: float = 0.0
    early_submit: float = 0.0
    no_submit: float = 0.0


@dataclass(frozen=True)
class Demonstration:
    """The issue's text and the exchanges of one scripted episode."""

    report: str
    exchanges: tuple[Exchange, ...]


@dataclass
class _Desk:
    """The episode while it is being written: the file with its bug, and what is open."""

    function: Function
    lines: list[str]
    window_lines: int
    open_file: str | None = None

    def answer(self, output: str) -> str:
        """An observation as the scaffold words it."""
        return f"{output}\n{prompt_line(WORKDIR, self.open_file)}"

    def view(self, line: int) -> str:
        """What `open FILE LINE` prints."""
        total = len(self.lines) - (self.lines[-1] == "")
        path = self.function.file.path
        self.open_file = f"{WORKDIR}/{path}"
        first = max(1, min(line - self.window_lines // 6, total - self.window_lines + 1))
        last = min(total, first + self.window_lines - 1)
        parts = [f"[File: {WORKDIR}/{path} ({total} lines total)]"]
        parts += [f"({first - 1} more lines above)"] if first > 1 else []
        parts += self._numbered(first, last)
        parts += [f"({total - last} more lines below)"] if last < total else []
        return self.answer("\n".join(parts))

    def edit(self, start: int, stop: int, text: list[str]) -> str:
        """What `edit START:STOP` prints, without a syntax warning; the lines change."""
        self.lines[start - 1 : stop] = text
        total = len(self.lines) - (self.lines[-1] == "")
        first, last = max(1, start - AROUND_EDIT_LINES), min(total, start + len(text) - 1 + AROUND_EDIT_LINES)
        return self.answer("\n".join([f"[Edited: {total} lines total]", *self._numbered(first, last)]))

    def _numbered(self, first: int, last: int) -> list[str]:
        return [f"{number}:{self.lines[number - 1]}" for number in range(first, last + 1)]


def block(thought: str, command: str) -> str:
    """A response as the scaffold wants it."""
    return f"{thought}\n```command\n{command}\n```"


def edit_command(start: int, stop: int, text: list[str]) -> str:
    """The edit tool with the new lines as a heredoc."""
    return "\n".join([f"edit {start}:{stop} <<'EOF'", *text, "EOF"])


def repair(function: Function, bug: Mutant) -> tuple[int, int, list[str]]:
    """The range of the buggy file and the lines to put there: START, STOP (inclusive), the text.

    Some lines around the bug are written anew with it, so that the place need not be hit exactly.
    """
    start = min(bug.lineno, max(function.lineno + 1, bug.lineno - AROUND_BUG_LINES))
    stop = min(function.end_lineno, bug.end_lineno + AROUND_BUG_LINES)
    grown = bug.mutated.count("\n") - bug.original.count("\n")
    return start, stop + grown, list(function.file.lines[start - 1 : stop])


def mend(function: Function, bug: Mutant) -> str:
    """The response that repairs a bug."""
    return block(f"{PLACE}{bug.lineno}.", edit_command(*repair(function, bug)))


def fresh_bug(function: Function, rng: random.Random) -> Mutant:
    """A mutation as tasks are made from, or a cruder corruption; never one that a shipped task has."""
    while True:
        bug = rng.choice(function.mutants) if function.mutants and rng.random() < 0.35 else corrupt(function, rng)
        if bug is not None:
            return bug


def drill(function: Function, bugs: Sequence[Mutant], window_lines: int) -> Demonstration:
    """A view of the function with several bugs of one line each, and their repairs: dense practice, no episode."""
    lines = list(function.file.lines)
    for bug in bugs:
        lines[bug.lineno - 1] = bug.mutated.rstrip("\n")
    desk = _Desk(function, lines, window_lines)
    exchanges = [Exchange("", desk.view(function.lineno))]
    for bug in bugs:
        if desk.lines[bug.lineno - 1] == bug.mutated.rstrip("\n"):  # not mended with another one
            response = mend(function, bug)
            exchanges.append(Exchange(response, desk.edit(*repair(function, bug))))
    return Demonstration("", tuple(exchanges))


def one_liners(function: Function, rng: random.Random, count: int) -> list[Mutant]:
    """Up to `count` fresh bugs that each turn one line into another, on different lines."""
    bugs: dict[int, Mutant] = {}
    for _ in range(3 * count):
        bug = fresh_bug(function, rng)
        if bug.original.count("\n") == bug.mutated.count("\n") == 1:
            bugs.setdefault(bug.lineno, bug)
    return list(bugs.values())[:count]


def demonstrate(
    function: Function, mutant: Mutant, report: str, care: Carelessness, window_lines: int, rng: random.Random
) -> Demonstration:
    """One episode on a fresh bug."""
    source = "\n".join(function.file.lines)
    desk = _Desk(function, mutant.apply(source).split("\n"), window_lines)
    exchanges: list[Exchange] = []
    for response, answer in _plan(desk, mutant, care, rng):
        while rng.random() < care.format_error:
            exchanges.append(_format_error(desk, response, rng))
        if rng.random() < care.detour:
            exchanges.append(_detour(desk, rng))
        exchanges.append(Exchange(response, answer() if answer else None))
    return Demonstration(report, tuple(exchanges))


def _plan(desk: _Desk, mutant: Mutant, care: Carelessness, rng: random.Random) -> Iterator[tuple[str, object]]:
    """The responses in order, each with what makes its observation (called once the response really comes)."""
    function = desk.function
    found = list(function.definitions)
    rng.shuffle(found)
    yield block("Find it.", f'grep -rn "def {function.name}(" .'), lambda: desk.answer("\n".join(found))
    if rng.random() < care.early_submit:
        yield block("Done.", "submit"), None
        return
    yield (
        block("Look at it.", f"open {function.file.path} {function.lineno}"),
        lambda: desk.view(function.lineno),
    )
    for place in _places(function, mutant, care, rng):
        start, stop, text = repair(function, place)
        yield mend(function, place), lambda start=start, stop=stop, text=text: desk.edit(start, stop, text)
    if rng.random() < care.no_submit:
        for _ in range(4):
            yield (
                block("Look at it.", f"open {function.file.path} {function.lineno}"),
                lambda: desk.view(function.lineno),
            )
        return
    yield block("Done.", "submit"), None


def _places(function: Function, mutant: Mutant, care: Carelessness, rng: random.Random) -> list[Mutant]:
    if rng.random() >= care.wrong_line:
        return [mutant]
    wrong = _sound_line(function, rng)
    start, stop, _ = repair(function, wrong)
    mended = start <= mutant.end_lineno and mutant.lineno <= stop
    shifted = mutant.original.count("\n") != mutant.mutated.count("\n")
    again = not mended and not shifted and rng.random() < care.second_try
    return [wrong, mutant] if again else [wrong]


def _sound_line(function: Function, rng: random.Random) -> Mutant:
    """Any line of the function, as if it had a bug: repairing it changes nothing there."""
    number = rng.randint(function.lineno + 1, max(function.lineno + 1, min(function.end_lineno, function.last_shown)))
    line = function.file.lines[number - 1] + "\n"
    return Mutant("none", function.qualname, number, number, line, line, function.lineno, function.end_lineno)


def _format_error(desk: _Desk, response: str, rng: random.Random) -> Exchange:
    if rng.random() < 0.6:
        bare = response.replace("```command\n", "").removesuffix("\n```")
        return Exchange(bare, desk.answer(FORMAT_ERROR_TEXTS[FormatError.NO_COMMAND]))
    both = response + "\n" + block("Done.", "submit")
    return Exchange(both, desk.answer(FORMAT_ERROR_TEXTS[FormatError.MULTIPLE_COMMANDS]))


def _detour(desk: _Desk, rng: random.Random) -> Exchange:
    if rng.random() < 0.5:
        return Exchange(block("Where am I?", "pwd"), desk.answer(WORKDIR))
    return Exchange(block("Wait.", "true"), desk.answer("[no output]"))
