"""What the stand-in is trained on: the functions behind the shipped tasks, their clean source, and fresh bugs in them.

A bug that any shipped task has, train or held-out, is never among the fresh ones, though there are fresh ones in every
function, held-out ones too: the model is to know the packages by heart. Issue texts come from the train split
alone.
"""

import random
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from turnwise.tasks.mutate import Mutant, enumerate_mutants
from turnwise.types import Task

_FILE, _NAME = "\0file\0", "\0name\0"
_HURRIED = ("`{}` gives a wrong result.", "Wrong result from `{}`", "`{}` is broken.", "`{}` fails.")


@dataclass(frozen=True)
class SourceFile:
    """One clean module: its path in the repository and its lines."""

    path: str
    lines: tuple[str, ...]


@dataclass(frozen=True)
class Function:
    """A function that shipped tasks have bugs in, the bugs to learn on, and how its bugs get reported."""

    file: SourceFile
    qualname: str
    lineno: int
    end_lineno: int
    last_shown: int  # the last line that `open FILE LINENO` shows
    mutants: tuple[Mutant, ...]
    shipped: frozenset[tuple[int, str]]  # line and text of every bug that a shipped task has
    reports: tuple[str, ...]
    definitions: tuple[str, ...]  # what `grep -rn "def NAME(" .` prints

    @property
    def name(self) -> str:
        """The last part of the qualified name."""
        return self.qualname.rpartition(".")[2]


def functions_of(tasks: Sequence[Task], clean_roots: dict[str, Path], window_lines: int) -> list[Function]:
    """One `Function` for each that the tasks have a bug in, in the tasks' order.

    `clean_roots` maps a package's name to its unpacked source. Reports are those of the train split only.
    """
    by_place: dict[tuple[str, str, str], list[Task]] = defaultdict(list)
    for task in tasks:
        by_place[task.sdist.package, task.meta["file"], task.meta["function"]].append(task)
    definitions = {name: _definitions(root) for name, root in clean_roots.items()}
    enumerated: dict[tuple[str, str], list[Mutant]] = {}
    functions = []
    for (package, path, qualname), group in by_place.items():
        text = (clean_roots[package] / path).read_text(encoding="utf-8")
        if (package, path) not in enumerated:
            enumerated[package, path] = enumerate_mutants(text)
        mutants = [m for m in enumerated[package, path] if m.function == qualname]
        if not mutants:
            continue
        shipped = frozenset((task.meta["lineno"], task.meta["mutated"]) for task in group)
        first = mutants[0].function_lineno
        last_shown = first - window_lines // 6 + window_lines - 1
        fresh = tuple(m for m in mutants if (m.lineno, m.mutated) not in shipped and m.end_lineno <= last_shown)
        reports = tuple(task.problem_statement for task in group if task.meta["split"] == "train")
        name = qualname.rpartition(".")[2]
        functions.append(
            Function(
                SourceFile(path, tuple(text.split("\n"))),
                qualname,
                first,
                mutants[0].function_end_lineno,
                last_shown,
                fresh,
                shipped,
                reports,
                tuple(definitions[package].get(name, ())),
            )
        )
    return functions


def _definitions(root: Path) -> dict[str, list[str]]:
    """By function name, the lines that define it, as grep prints them."""
    found: dict[str, list[str]] = defaultdict(list)
    for path in sorted(root.rglob("*.py")):
        shown = f"./{path.relative_to(root)}"
        for number, line in enumerate(path.read_text(encoding="utf-8", errors="replace").split("\n"), 1):
            if line.lstrip().startswith("def ") and "(" in line:
                name = line.lstrip()[4:].partition("(")[0]
                found[name].append(f"{shown}:{number}:{line}")
    return found


@dataclass(frozen=True)
class Reports:
    """Issue texts to put before a demonstration."""

    templates: tuple[str, ...]  # others' reports, with marks where their function and its file were named

    @classmethod
    def of(cls, functions: Sequence[Function]) -> "Reports":
        """Templates of every report that names its function."""
        return cls(
            tuple(
                report.replace(function.file.path, _FILE).replace(function.name, _NAME)
                for function in functions
                for report in function.reports
                if function.name in report.partition("\n")[0]
            )
        )

    def draw(self, function: Function, rng: random.Random) -> str:
        """A real report of the function, one of another function with the names put right, or a hurried user's line.

        The latter two teach to read the name in the text; by the real ones alone it would be learnt by heart.
        """
        kind = rng.random()
        if kind < 0.5 and function.reports:
            return rng.choice(function.reports)
        if kind < 0.85:
            return rng.choice(self.templates).replace(_FILE, function.file.path).replace(_NAME, function.name)
        return rng.choice(_HURRIED).format(function.name)
