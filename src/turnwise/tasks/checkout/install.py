"""Puts packages into the environment on a bench, at the versions of a day."""

import re
import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import date, timedelta
from os.path import normpath
from pathlib import Path

from packaging.utils import canonicalize_name

from turnwise.errors import TaskError
from turnwise.tasks.checkout import needs
from turnwise.tasks.checkout.bench import ENV, Bench, Done
from turnwise.tasks.checkout.requirements import parse, pinned_names, requirement_lines

STEP_TIMEOUT_S = 1200.0
# These must be young enough for editable installs as uv makes them (PEP 660), however old the repository is.
_BUILD_TOOLS = ("setuptools", "wheel", "pip", "flit-core", "poetry-core", "poetry", "hatchling", "pdm-backend")
_EDITABLE_SINCE = date(2022, 9, 30)
_ANY_DAY = date(2100, 1, 1)
_A_DAY = timedelta(days=1)
_YEARS_LATER = (1, 2, 4)
_TOO_YOUNG = re.compile(r"`([\w.-]+)` was filtered by `exclude-newer`.*?published at (\d{4}-\d\d-\d\d)")
# As `setup.py develop` does: the project's folder itself on the path, where setuptools would put an import hook since
# version 64. Some code under test (pylint's, astroid's) looks its own files up on the path.
_LIKE_DEVELOP = ("--config-setting", "editable_mode=compat")
_NO_PEP_660 = "has no attribute 'build_editable'"
_UNRESOLVED = re.compile(r"No solution found|no versions? of|was not found in the package registry|exclude-newer")
# The packages that uv names as the reason, and those that asked for one of them.
_NAMED = re.compile(
    r"Because ([\w.-]+) was not found in the package registry|Failed to build `([\w.-]+)=="
    r"|was included because `([\w.-]+)`"
)
_PROJECT = re.compile(r"(-e|--editable)[\s=]+\.(\[[\w\s,.-]+\])?")
_INCLUDES = re.compile(r"(-r|-c)\s*(\S+)")
# What these install they take of today, whatever the day.
_DEVELOPS = re.compile(r"\bsetup\.py\s+(develop|install)\b")
_MAKES = re.compile(r"make(\s+[\w.-]+)*\s*")
_DRY_RUN_S = 60.0
_NEEDLESS = frozenset({"-q", "-qq", "-v", "-vv", "--quiet", "--verbose", "--no-cache-dir", "--user", "--use-pep517"})
_NOT_HAD = frozenset(
    {"apt", "apt-get", "add-apt-repository", "aptitude", "apk", "brew", "conda", "dnf", "dpkg", "locale-gen", "mamba"}
    | {"sudo", "systemctl", "yum"}
)


class Installer:
    """Installs on one bench; `left_out` gathers, in plain words, what of the row could not be had.

    `day` is the last day whose releases are taken, None for all: it moves on by years where a row's pins are younger,
    and stays there, for they tell when the row's environment was made.
    """

    def __init__(self, bench: Bench, day: date | None, seeds: Sequence[str] = ()) -> None:
        self._bench = bench
        self._day = day
        self._seeds = seeds
        self.left_out: list[str] = []

    def create(self) -> None:
        """Make the environment, with pip, setuptools and wheel in it. Raises TaskError when that fails."""
        made = self._bench.uv(
            "venv", "-q", "--allow-existing", "--python", str(self._bench.python.executable), ENV, timeout_s=120
        )
        if made.exit_code:
            raise TaskError(f"the environment cannot be made: {made.last_words}")
        names = {line.split("==")[0] for line in self._seeds}
        seeds = [*self._seeds, *(name for name in ("pip", "setuptools", "wheel") if name not in names)]
        if self.uv(seeds, self._seeds).exit_code:
            self.each(seeds)

    def uv(self, arguments: Sequence[str], lines: Iterable[str] = (), **variables: str) -> Done:
        """`uv pip install` with releases of the day; `lines` are the requirements whose pins may be younger."""
        pinned = pinned_names(list(lines))
        done = Done(1, "")
        for day in self._days(bool(pinned)):
            done = self._on_day(day, arguments, pinned, variables)
            if not done.exit_code:
                self._day = day
            if not done.exit_code or not _UNRESOLVED.search(done.output):
                return done
        return done

    def _days(self, pinned: bool) -> Iterator[date | None]:
        yield self._day
        if self._day is not None and pinned:
            yield from (self._day + timedelta(days=365 * years) for years in _YEARS_LATER)
            yield None

    def _on_day(
        self, day: date | None, arguments: Sequence[str], younger: Sequence[str] = (), variables: Mapping[str, str] = {}
    ) -> Done:
        """Install with the releases of a day, and those younger ones without which there is no solution.

        Those are pins of the row's, and packages that have no older releases (any more), which uv names.
        """
        free = dict.fromkeys(younger, _ANY_DAY)
        while True:
            done = self._bench.uv(
                *("pip", "install", "--python", f"{ENV}/bin/python", *_until(day, free), *arguments),
                timeout_s=STEP_TIMEOUT_S,
                **variables,
            )
            named = {name: date.fromisoformat(said) + _A_DAY for name, said in _TOO_YOUNG.findall(done.output)}
            if not done.exit_code or not named.keys() - free.keys():
                return done
            free = {**named, **free}

    def frozen(self, lines: Sequence[str]) -> None:
        """Install a complete list of pins as it is. A pin that cannot be had does not sink the others."""
        if lines and self._on_day(None, ["--no-deps", *lines]).exit_code:
            self.each(lines, "--no-deps")

    def wanted(self, lines: Sequence[str]) -> None:
        """Install requirements with what they need, together if they go together, else as many as can be had."""
        if lines:
            self._as_many_as_go(lines, self.uv(_arguments(lines), lines))

    def _as_many_as_go(self, lines: Sequence[str], done: Done) -> None:
        """Install what is left of requirements without those that uv names as the reason why `done` failed."""
        kept, refused = list(lines), []
        while done.exit_code and kept:
            named = {canonicalize_name(name) for found in _NAMED.findall(done.output) for name in found if name}
            if not named & {_name(line) for line in kept}:
                self.each(kept)
                break
            refused += [(line, done) for line in kept if _name(line) in named]
            kept = [line for line in kept if _name(line) not in named]
            if kept:
                done = self.uv(_arguments(kept), kept)
        for line, why in refused:
            self._replace(line, (), why)

    def each(self, lines: Sequence[str], *options: str) -> None:
        """Install in ever smaller parts what does not go as a whole; what cannot be had is told.

        Where it is the version that cannot be had, another one of the same package is taken, and told.
        """
        if len(lines) == 1:
            self._single(lines[0], options)
            return
        for half in (lines[: len(lines) // 2], lines[len(lines) // 2 :]):
            if self._on_day(self._day, [*options, *_arguments(half)], pinned_names(half)).exit_code:
                self.each(half, *options)

    def _single(self, line: str, options: Sequence[str]) -> None:
        done = self.uv([*options, *_arguments([line])], [line])
        if done.exit_code:
            self._replace(line, options, done)

    def _replace(self, line: str, options: Sequence[str], refused: Done) -> None:
        """Take another version of what could not be had, where it is the version that was asked for; tell either."""
        requirement = parse(line)
        if requirement is not None and requirement.specifier and not self.uv([*options, requirement.name]).exit_code:
            self.left_out.append(f"{line}: cannot be had; another version is taken")
        else:
            self.left_out.append(f"{line}: cannot be had ({refused.last_words[:200]})")

    def files(self, paths: Sequence[str], folder: Path, **variables: str) -> None:
        """Install requirements files that lie below `folder`; line by line where they do not go together.

        `variables` are for the command that installs the project, should a line ask for it.
        """
        there = [folder / path for path in paths if (folder / path).is_file()]
        self.left_out += [f"{path}: the repository has no such file" for path in paths if folder / path not in there]
        lines = list(dict.fromkeys(line for file in there for line in self._lines(file)))
        done = self.uv([word for file in there for word in ("-r", self._bench.shown(file))], lines) if there else None
        if done and done.exit_code:
            self._one_by_one([line for line in lines if not line.startswith("--")], done, variables)

    def _one_by_one(self, lines: Sequence[str], done: Done, variables: dict[str, str]) -> None:
        """The lines of files that did not go as a whole: the project itself last, as its own command would have it."""
        project = [line for line in lines if _PROJECT.fullmatch(line)]
        others = [line for line in lines if line not in project]
        self._as_many_as_go(others, self.uv(_arguments(others), others) if project and others else done)
        for line in project:
            if (failed := self.command(f"pip install {line}", **variables)).exit_code:
                self.left_out.append(f"{line}: cannot be had ({failed.last_words[:200]})")

    def _lines(self, file: Path, within: tuple[Path, ...] = ()) -> Iterator[str]:
        """The lines of a requirements file and of those it includes, each fit to stand alone."""
        for line in requirement_lines(file.read_text(encoding="utf-8", errors="replace")):
            match = _INCLUDES.fullmatch(line)
            named = Path(normpath(file.parent / match[2])) if match else file
            if match is None:
                yield line
            elif match[1] == "-c" or not named.is_file():
                yield f"{match[1]} {self._bench.shown(named)}"
            elif named not in (*within, file):
                yield from self._lines(named, (*within, file))

    def command(self, command: str, **variables: str) -> Done:
        """Run one of the row's commands. Plain `pip install …` is uv's if it can, at the day's releases.

        What uv does not take (a build that cannot do PEP 660) is pip's, with the project's needs installed by uv
        before; at last it runs as it stands. So does any other command, after what it would install of today.
        """
        arguments = pip_arguments(command)
        if arguments is None:
            self._needs_of_shell(command, variables)
            return self._bench.shell(command, STEP_TIMEOUT_S, **variables)
        kept = [word for word in arguments if word not in _NEEDLESS]
        if self._seeds:
            kept += ["--build-constraints", self._bench.note("build-constraints.txt", "\n".join(self._seeds))]
        if not (self._bench.python.is_older_than_37 and _is_editable(kept)):
            developed = _LIKE_DEVELOP if needs.is_developed(self._bench.root) else ()
            done = self.uv([*developed, *kept], kept, **variables)
            if done.exit_code and _NO_PEP_660 in done.output and needs.builds_with_setuptools_alone(self._bench.root):
                alone = [f"--no-build-isolation-package={name}" for name in needs.names(self._bench.root)]
                done = self.uv([*(alone or ["--no-build-isolation"]), *_LIKE_DEVELOP, *kept], kept, **variables)
            if not done.exit_code:
                return done
        tries = [command, f"{command} --no-build-isolation"]
        if self._needs_of_project(arguments, variables):
            tries = [f"{line} --no-deps" for line in tries] + tries[:1]
        return self._first_that_works(tries, variables)

    def _needs_of_shell(self, command: str, variables: dict[str, str]) -> None:
        """Install at the day's releases what a command would install of today: by setup.py, or by make."""
        steps = [command]
        if _MAKES.fullmatch(command):
            told = self._bench.shell(f"{command} --dry-run --no-print-directory", _DRY_RUN_S, **variables)
            steps = [line.strip() for line in told.output.splitlines()]
        for step in steps:
            if _DEVELOPS.search(step):
                self._needs_of_project(["."], variables)
            elif pip_arguments(step) is not None:
                self.command(step, **variables)

    def _first_that_works(self, commands: Sequence[str], variables: dict[str, str]) -> Done:
        """Run commands until one succeeds; how the first ended where none does."""
        failed = []
        for command in commands:
            done = self._bench.shell(command, STEP_TIMEOUT_S, **variables)
            if not done.exit_code:
                return done
            failed.append(done)
        return failed[0]

    def _needs_of_project(self, arguments: Sequence[str], variables: dict[str, str]) -> bool:
        """Install what the project in `-e .[extra]` needs, not itself; whether that was all that was asked for."""
        named = [word for word in arguments if not word.startswith("-")]
        match = re.fullmatch(r"\.(?:\[([\w\s,.-]+)\])?", named[0]) if len(named) == 1 else None
        if match is None:
            return False
        extras = [word for name in (match[1] or "").split(",") if name for word in ("--extra", name.strip())]
        files = [name for name in ("pyproject.toml", "setup.cfg", "setup.py") if (self._bench.root / name).is_file()]
        tries = (self.uv(["-r", name, *extras], **variables) for name in files)
        return any(not done.exit_code for done in tries)

    def preparation(self, command: str) -> None:
        """Run one of the row's preparing commands, less what needs the system's packages; failures are told."""
        parts = [part.strip() for part in command.split("&&")]
        not_had = [part for part in parts if part.split(maxsplit=1)[:1] and part.split()[0] in _NOT_HAD]
        self.left_out += [f"{part}: the system's packages are not installed" for part in not_had]
        rest = " && ".join(part for part in parts if part and part not in not_had)
        if rest and (done := self.command(rest)).exit_code:
            self.left_out.append(f"{rest}: failed ({done.last_words[:200]})")

    def take_out_unless_it_loads(self, package: str) -> None:
        """Take a package out again that breaks as it is imported, for want of a library: tests skip what is not there,
        and do not expect what is broken."""
        done = self._bench.run([f"{ENV}/bin/python", "-c", f"import {package}"], STEP_TIMEOUT_S)
        if done.exit_code and "ModuleNotFoundError" not in done.output:
            self._bench.uv("pip", "uninstall", "-q", "--python", f"{ENV}/bin/python", package, timeout_s=120)
            self.left_out.append(f"{package}: does not load here ({done.last_words[:200]})")

    def newest(self, packages: Sequence[str]) -> None:
        """Install the day's releases of packages, though older ones are there."""
        upgrade = [word for package in packages for word in ("--upgrade-package", package)]
        if self.uv([*upgrade, *packages]).exit_code:
            self.left_out.append(f"{' '.join(packages)}: the releases of the day cannot be had")


def _until(day: date | None, free: Mapping[str, date]) -> list[str]:
    """uv's options for releases of a day; those of the packages in `free` until their own."""
    if day is None:
        return []
    tools = {name: _EDITABLE_SINCE for name in _BUILD_TOOLS if day < _EDITABLE_SINCE}
    packages = [f"--exclude-newer-package={name}={until}" for name, until in {**tools, **free}.items()]
    return [f"--exclude-newer={day}", *packages]


def _arguments(lines: Sequence[str]) -> list[str]:
    """Requirement lines as arguments; an option ("-r more.txt") is several."""
    return [word for line in lines for word in (shlex.split(line) if line.startswith("-") else [line])]


def _name(line: str) -> str:
    """The canonical name of the package that a line requires; "" of an option or a path."""
    requirement = parse(line)
    return str(canonicalize_name(requirement.name)) if requirement else ""


def _is_editable(arguments: Sequence[str]) -> bool:
    return any(word.startswith(("-e", "--editable")) for word in arguments)


def pip_arguments(command: str) -> list[str] | None:
    """What follows `pip install` in a command that is nothing but that; None for any other command.

    >>> pip_arguments("python -m pip install -e '.[dev]'"), pip_arguments("pip install a && make")
    (['-e', '.[dev]'], None)
    """
    lexer = shlex.shlex(command, posix=True, punctuation_chars=";&|<>()")
    lexer.whitespace_split = True
    try:
        words = list(lexer)
    except ValueError:
        return None
    if any(set(word) <= set(";&|<>()") for word in words) or re.search(r"[$`\n]", command):
        return None
    match words:
        case [("python" | "python3"), "-m", "pip", "install", *arguments]:
            return arguments
        case [("pip" | "pip3"), "install", *arguments]:
            return arguments
    return None
