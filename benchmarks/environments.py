"""What a row costs from clone to verdict, beside the same steps by hand with git, uv and pytest; and a second episode.

    python benchmarks/environments.py ROWS.jsonl --repos DIR [--select REGEX] [--limit 6] [--json]

By hand: a shared clone at the base commit, `uv venv`, `uv pip install` of the row's requirements and of the repository
as releases were on the row's day (what uv does not take is pip's, or left out), then the row's test command without and
with the gold patch; both logs are graded by swebench, untimed, and must say what they say of a sound row. Ours: `tasks
validate --repeats 1`, which is that in sandboxes and a search for leaks. Both start without the environment, with
packages fetched (a first pass of each is not timed) and with a disk that has nothing left to write. `second start` is
what stands between a second episode on the task and its first command: prepare, create, run `true`. Rows that one of
the two brings to no verdict are told and not counted.
"""

import argparse
import asyncio
import json
import os
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, median

from rich.console import Console
from rich.table import Table

from turnwise.errors import TurnwiseError
from turnwise.pipeline.recipe import SandboxTable
from turnwise.pipeline.validation import validate_tasks
from turnwise.rewards.grading import Grader, whole_log
from turnwise.sandbox import LocalBackend
from turnwise.tasks import EnvironmentStore, read_tasks
from turnwise.tasks.checkout.bench import uv_environment, uv_executable
from turnwise.tasks.checkout.install import pip_arguments
from turnwise.tasks.checkout.pythons import find_python
from turnwise.tasks.select import select
from turnwise.types import Checkout, Task

_STARTS = 7


@dataclass(frozen=True)
class Measured:
    """Seconds from clone to verdict by hand and by Turnwise, and milliseconds to a second episode's first command."""

    instance_id: str
    by_hand_s: float
    ours_s: float
    second_start_ms: float

    @property
    def ratio(self) -> float:
        return self.ours_s / self.by_hand_s


class ByHandError(Exception):
    """A step by hand failed."""


@dataclass(frozen=True)
class ByHand:
    """The steps of somebody who checks one row in a fresh folder, none of them longer than `step_s`; `uv_cache` is what
    uv keeps between rows."""

    task: Task
    repository: Path
    folder: Path
    uv_cache: Path
    step_s: float = 1_800.0

    def run(self) -> tuple[str, str]:
        """The logs of the tests without and with the gold patch. Raises ByHandError where a step fails."""
        self._clone()
        self._install()
        self._apply(self.task.test_patch)
        before = self._tests()
        self._apply(self.task.patch)
        return before, self._tests()

    @property
    def _root(self) -> Path:
        return self.folder / "repository"

    def _clone(self) -> None:
        options = ("-q", "--shared", "--no-checkout")
        self._do("git", "clone", *options, str(self.repository), str(self._root), at=self.folder)
        self._do("git", "checkout", "-q", self.task.base_commit)

    def _install(self) -> None:
        assert isinstance(self.task.environment, Checkout)
        row = self.task.environment.installation
        python = find_python(row.python)
        if python is None:
            raise ByHandError(f"no Python {row.python}")
        self._do(str(uv_executable()), "venv", "-q", "--python", str(python.executable), str(self._venv))
        self._pip(["pip", "setuptools", "wheel"])
        for command in row.pre_install:
            self._do("bash", "-c", command)
        self._needs([*(f"-r{file}" for file in row.requirement_files), *row.pip_packages])
        for command in row.install:
            arguments = pip_arguments(command)
            if arguments is None or not self._has(arguments):
                self._do("bash", "-c", command)
        self._pip(["pytest"])

    def _needs(self, arguments: Sequence[str]) -> None:
        """Together, or one after the other where rows pin what does not go together, or is not to be had."""
        if arguments and not self._has(arguments):
            for one in arguments:
                self._has([one])

    def _pip(self, arguments: Sequence[str]) -> None:
        if not self._has(arguments):
            raise ByHandError(f"uv pip install {' '.join(arguments)} fails")

    def _has(self, arguments: Sequence[str]) -> bool:
        """Whether uv installs it, at the row's day or else at any."""
        command = [str(uv_executable()), "pip", "install", "-q", "--python", str(self._venv / "bin" / "python")]
        until = f"--exclude-newer={self.task.created_at[:10]}"
        tries = (self._try(*command, *options, *arguments) for options in ([until], []))
        return any(done.returncode == 0 for done in tries)

    @property
    def _venv(self) -> Path:
        return self.folder / "venv"

    def _apply(self, patch: str) -> None:
        (self.folder / "patch").write_text(patch, encoding="utf-8")
        self._do("git", "apply", "--whitespace=nowarn", str(self.folder / "patch"))

    def _tests(self) -> str:
        assert self.task.test_run is not None
        done = self._try("bash", "-c", self.task.test_run.command)
        return whole_log(done.stdout.decode(errors="replace"), done.returncode)

    def _do(self, *command: str, at: Path | None = None) -> None:
        done = self._try(*command, at=at)
        if done.returncode:
            words = done.stdout.decode(errors="replace").strip().splitlines() or ["no message"]
            raise ByHandError(f"{' '.join(command)[:80]}: {words[-1][:200]}")

    def _try(self, *command: str, at: Path | None = None) -> subprocess.CompletedProcess[bytes]:
        env = os.environ | {"PATH": f"{self._venv / 'bin'}:{os.environ['PATH']}", "VIRTUAL_ENV": str(self._venv)}
        env |= {"UV_CACHE_DIR": str(self.uv_cache)} | uv_environment()
        try:
            return subprocess.run(
                command,
                cwd=at or self._root,
                env=env,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                timeout=self.step_s,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise ByHandError(f"{' '.join(command)[:80]}: takes more than {self.step_s:g} s") from error


@dataclass(frozen=True)
class Benchmark:
    """Everything lies in `folder`: what both keep between rows, and what is made anew for each."""

    repos: Path
    folder: Path
    console: Console

    def measure(self, task: Task) -> Measured:
        """Both, each once untimed and once timed. Raises ByHandError and TurnwiseError."""
        times = []
        for what in ("packages are fetched", "timed"):
            self.console.print(f"{task.instance_id}: {what}, by hand", style="dim")
            by_hand_s = self._by_hand(task)
            self.console.print(f"{task.instance_id}: {what}, by Turnwise", style="dim")
            times.append((by_hand_s, self._ours(task)))
        return Measured(task.instance_id, *times[1], asyncio.run(self._second_start(task)))

    def _by_hand(self, task: Task) -> float:
        name = task.repo.replace("/", "__")
        there = [path for path in (self.repos / name, self.repos / f"{name}.git") if path.is_dir()]
        if not there:
            raise ByHandError(f"{self.repos} has no clone {name}")
        fresh = Path(tempfile.mkdtemp(dir=self.folder))
        os.sync()
        started = time.perf_counter()
        before, after = ByHand(task, there[0], fresh, self.folder / "uv").run()
        taken = time.perf_counter() - started
        assert task.test_run is not None
        grader = Grader(task, task.test_run)
        if grader.of_log(before).resolved or not grader.of_log(after).resolved:
            raise ByHandError("its tests do not tell the gold patch from none")
        return taken

    def _ours(self, task: Task) -> float:
        out = self.folder / "verdicts.jsonl"
        out.unlink(missing_ok=True)
        if self._checkouts.exists():
            # Not removed: freeing its blocks would still burden the disk while the next steps are timed.
            self._checkouts.rename(Path(tempfile.mkdtemp(dir=self.folder)) / "checkouts")
        os.sync()
        started = time.perf_counter()
        environments = EnvironmentStore(self._cache, self.repos)
        verdicts = validate_tasks(
            [task], out, sandbox=SandboxTable(), repeats=1, workers=1, tell=lambda _: None, environments=environments
        )
        if not verdicts[0].admitted:
            raise ByHandError(f"not admitted: {verdicts[0].reason}")
        return time.perf_counter() - started

    @property
    def _cache(self) -> Path:
        return self.folder / "turnwise"

    @property
    def _checkouts(self) -> Path:
        return self._cache / "checkouts"

    async def _second_start(self, task: Task) -> float:
        """The median of several, after a first."""
        store, backend = EnvironmentStore(self._cache, self.repos), LocalBackend()
        starts = []
        for _ in range(_STARTS + 1):
            started = time.perf_counter()
            async with backend.create(await store.prepare(task)) as sandbox:
                await sandbox.exec("true", 60)
                starts.append((time.perf_counter() - started) * 1000)
        await backend.close()
        return median(starts[1:])


def measured(benchmark: Benchmark, tasks: Sequence[Task]) -> Iterator[Measured]:
    """One row after the other; those that do not come to a verdict are told."""
    for task in tasks:
        try:
            yield benchmark.measure(task)
        except (ByHandError, TurnwiseError) as error:
            benchmark.console.print(f"{task.instance_id}: not counted: {error}", style="yellow", markup=False)


def table(found: Sequence[Measured]) -> Table:
    """The rows, and their means."""
    shown = Table("row", "by hand, s", "Turnwise, s", "ratio", "second start, ms")
    for one in found:
        times = (f"{one.by_hand_s:.1f}", f"{one.ours_s:.1f}", f"{one.ratio:.2f}", f"{one.second_start_ms:.0f}")
        shown.add_row(one.instance_id, *times)
    shown.add_section()
    totals = (mean(one.by_hand_s for one in found), mean(one.ours_s for one in found))
    worst = max(one.second_start_ms for one in found)
    shown.add_row("mean", *(f"{s:.1f}" for s in totals), f"{totals[1] / totals[0]:.2f}", f"{worst:.0f} (worst)")
    return shown


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rows", type=Path)
    parser.add_argument("--repos", type=Path, required=True)
    parser.add_argument("--select", default=None)
    parser.add_argument("--limit", type=int, default=6)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    tasks = read_tasks(arguments.rows)
    if arguments.select:
        tasks = select(tasks, arguments.select)
    console = Console()
    with tempfile.TemporaryDirectory(prefix="turnwise-benchmark-") as folder:
        benchmark = Benchmark(arguments.repos.absolute(), Path(folder), Console(stderr=True))
        found = list(measured(benchmark, tasks[: arguments.limit]))
    if not found:
        raise SystemExit("no row came to a verdict")
    if arguments.json:
        rows = [vars(one) | {"ratio": one.ratio} for one in found]
        ratio = sum(one.ours_s for one in found) / sum(one.by_hand_s for one in found)
        print(json.dumps({"rows": rows, "ratio": ratio}))
    else:
        console.print(table(found))


if __name__ == "__main__":
    main()
