"""What an operator says (an edit) and what comes out of it (a mutant)."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Edit:
    """Replace the characters `start:stop` of a source text by `text`."""

    start: int
    stop: int
    text: str

    def apply(self, source: str) -> str:
        """The source with this edit made."""
        return source[: self.start] + self.text + source[self.stop :]


@dataclass(frozen=True)
class Mutant:
    """One small bug: lines `lineno..end_lineno` (1-based, inclusive) of a file, `original`, become `mutated`.

    Both texts are whole lines with their line ends; `mutated` is empty when the lines are gone. `function` is the
    qualified name of the innermost function, which spans `function_lineno..function_end_lineno`.

    >>> source = "def smaller(a, b):\\n    return a < b\\n"
    >>> bug = Mutant("boundary", "smaller", 2, 2, "    return a < b\\n", "    return a <= b\\n", 1, 2)
    >>> bug.apply(source)
    'def smaller(a, b):\\n    return a <= b\\n'
    """

    kind: str
    function: str
    lineno: int
    end_lineno: int
    original: str
    mutated: str
    function_lineno: int
    function_end_lineno: int

    @property
    def function_lines(self) -> int:
        """How many lines the function has, decorators left out."""
        return self.function_end_lineno - self.function_lineno + 1

    @property
    def name(self) -> str:
        """The function's own name: the last part of its qualified name."""
        return self.function.rpartition(".")[2]

    def apply(self, source: str) -> str:
        """The whole file with the bug in it."""
        lines = source.split("\n")
        kept = "\n".join([*lines[: self.lineno - 1], ""]), "\n".join(lines[self.end_lineno :])
        return kept[0] + self.mutated + kept[1]
