"""Commits of a repository's past into tasks: their tests measured without and with the fix, then through the gate."""

import asyncio
import re
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from turnwise.errors import InputError
from turnwise.pipeline.recipe import SandboxTable
from turnwise.pipeline.validation import BuiltEnvironments, Gate, SandboxTrials, refused
from turnwise.pipeline.workshop import open_backend, open_store
from turnwise.rewards import find_pytest, outcomes, require_graders
from turnwise.store.lock import lock_run
from turnwise.tasks import check_task
from turnwise.tasks.filters import Step
from turnwise.tasks.formats.commands import editable
from turnwise.tasks.gate import IDLE_PATCH
from turnwise.tasks.mine import Candidate, Measured, MinedFile, Prospects, settle_tests, told_problem, told_symptom
from turnwise.tasks.verdicts import Fault, GateVerdict, VerdictFile
from turnwise.together import together
from turnwise.types import Checkout, Installation, SuiteResult, Task, TestRun


@dataclass(frozen=True)
class Mined:
    """What came of one candidate: the gate's verdict; the task where it is admitted; the tests that were measured.

    >>> Mined(GateVerdict(instance_id="a__b-1", admitted=False, fault=Fault.LEAK)).task is None
    True
    """

    verdict: GateVerdict
    task: Task | None = None
    measured: Measured | None = None


@dataclass(frozen=True)
class Mining:
    """How to mine: runs of the tests on each side, candidates at once, tasks at most (0: all), share held out.

    `test_command` is the repository's own pytest command, to which test files are added; without one our own runner
    runs the tests. `python` ("3.11") and `install`, commands at the repository's root, are how its environments are
    made; without them its metadata decides. Raises InputError for a test command that is not pytest, or does not list
    the tests that passed.

    >>> Mining(test_command="pytest -rA").run_of(["tests/test_calc.py"])
    TestRun(command='pytest -rA tests/test_calc.py', log_parser='parse_log_pytest', eval_type='pass_and_fail')
    """

    repeats: int = 3
    workers: int = 2
    limit: int = 0
    held_out: float = 0.25
    test_command: str = ""
    python: str = ""
    install: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.test_command:
            return
        command = find_pytest(self.test_command)
        if command is None or re.search(r"\bcd\b", command.before):
            raise InputError(f"test command {self.test_command!r}: should be one plain call of pytest")
        if "-rA" not in command.arguments:  # by which the log names what passed
            raise InputError(f"test command {self.test_command!r}: lacks -rA, without which its log can't be graded")

    def task_of(self, candidate: Candidate) -> Task:
        """The candidate's task with its environment and its tests as they are wanted here."""
        installation = Installation(python=self.python, install=tuple(map(editable, self.install)))
        return replace(candidate.task, environment=Checkout(installation), test_run=self.run_of(candidate.test_files))

    def run_of(self, test_files: Sequence[str]) -> TestRun | None:
        """How a row of these hidden test files wants them run; None leaves it to our own runner."""
        if not self.test_command:
            return None
        return TestRun(f"{self.test_command} {shlex.join(test_files)}", "parse_log_pytest")


def mine_tasks(
    candidates: Sequence[Candidate],
    repository: Path,
    out: Path,
    gate_file: Path,
    *,
    sandbox: SandboxTable,
    options: Mining,
    tell: Callable[[Mined], None],
    environments: BuiltEnvironments | None = None,
) -> dict[str, GateVerdict]:
    """Try candidates of the history at `repository` in their order; the verdicts on those that were tried, by id.

    `out` gets the tasks, written whole after each one, `gate_file` a line for every candidate; those with a line are
    not tried again, unless the infrastructure had failed them or their task is gone from `out`. `tell` hears of each
    new one. Raises InputError where a file is of another kind or a test command needs swebench and it is not installed,
    StoreError where another process writes it.
    KeyboardInterrupt passes through once all sandboxes are gone.
    """
    tried = [replace(one, task=options.task_of(one)) for one in candidates]
    require_graders(one.task for one in tried)
    gate_file.parent.mkdir(parents=True, exist_ok=True)
    with lock_run(gate_file), asyncio.Runner() as runner:
        books = _Books(MinedFile(out, options.held_out), VerdictFile(gate_file), tried, options.limit)
        made = environments or open_store(sandbox, None, {one.task.repo: repository for one in candidates})
        backend = open_backend(sandbox)
        gate = Gate(backend, made, sandbox, options.repeats)
        try:
            runner.run(_try_all(gate, books, options.workers, tell))
        finally:
            made.stop()
            runner.run(backend.close())
        return dict(books.settled)


def mining_steps(prospects: Prospects, verdicts: Mapping[str, GateVerdict]) -> list[Step]:
    """The funnel from commits to admitted tasks; what a step dropped is named by commit, from the runs on by task."""
    steps = list(prospects.steps)
    left = [one.task.instance_id for one in prospects.candidates]
    for name, keeps in _KEEPS.items():
        kept = [one for one in left if one in verdicts and keeps(verdicts[one])]
        steps.append(Step(name, tuple(one for one in left if one not in kept), len(kept)))
        left = kept
    return steps


_KEEPS: Mapping[str, Callable[[GateVerdict], bool]] = {
    "tried": lambda verdict: verdict.fault is not Fault.INFRASTRUCTURE,
    "environment built": lambda verdict: verdict.fault is not Fault.ENVIRONMENT,
    "failing tests turned passing": lambda verdict: verdict.fault not in (Fault.NO_FAILING_TEST, Fault.ROW),
    "admitted": lambda verdict: verdict.admitted,
}


@dataclass(frozen=True)
class _Books:
    """Both files and the candidates; a task stands in `mined` before its verdict does in `verdicts`."""

    mined: MinedFile
    verdicts: VerdictFile
    candidates: Sequence[Candidate]
    limit: int

    @property
    def settled(self) -> dict[str, GateVerdict]:
        """The verdicts on these candidates that hold."""
        ids = [one.task.instance_id for one in self.candidates]
        known = {name: self.verdicts.verdicts[name] for name in ids if name in self.verdicts.verdicts}
        return {name: one for name, one in known.items() if not one.admitted or name in self.mined.tasks}

    @property
    def is_full(self) -> bool:
        """Whether there are as many tasks as are wanted."""
        return 0 < self.limit <= sum(verdict.admitted for verdict in self.settled.values())

    def left(self) -> Iterator[Candidate]:
        """The candidates to be tried, until there are tasks enough."""
        settled = self.settled
        for candidate in self.candidates:
            if candidate.task.instance_id not in settled:
                if self.is_full:
                    return
                yield candidate

    def keep(self, mined: Mined) -> bool:
        """Write it down; False for a task beyond the limit, which stays to be tried."""
        if mined.task is not None:
            if self.is_full:
                return False
            self.mined.add(mined.task)
        self.verdicts.add(mined.verdict)
        return True


async def _try_all(gate: Gate, books: _Books, workers: int, tell: Callable[[Mined], None]) -> None:
    left = books.left()

    async def work() -> None:
        for candidate in left:
            mined = await _Trial(gate, candidate).mined()
            if books.keep(mined):
                tell(mined)

    await together(work() for _ in range(workers))


class _Trial:
    """One candidate being tried."""

    def __init__(self, gate: Gate, candidate: Candidate) -> None:
        self._gate = gate
        self._candidate = candidate
        self._task = candidate.task
        self._measured: Measured | None = None

    async def mined(self) -> Mined:
        """What came of it, whatever happens."""
        verdict = await self._gate.judged(self._task, self._judge)
        return Mined(verdict, self._task if verdict.admitted else None, self._measured)

    async def _judge(self, trials: SandboxTrials) -> GateVerdict:
        before = [await self._outcomes(trials, IDLE_PATCH) for _ in range(self._gate.repeats)]
        after = [await self._outcomes(trials, self._task.patch) for _ in range(self._gate.repeats)]
        self._measured = found = settle_tests([run.outcomes for run in before], [run.outcomes for run in after])
        if not found.fail_to_pass:
            return refused(self._task, Fault.NO_FAILING_TEST, _why_none(found, after))
        problem = await self._problem(trials, found.fail_to_pass)
        if not problem:
            return refused(self._task, Fault.ROW, "neither its commits nor its tests tell of a problem")
        self._task = replace(
            self._task,
            problem_statement=problem,
            fail_to_pass=found.fail_to_pass,
            pass_to_pass=found.pass_to_pass,
        )
        return await check_task(self._task, replace(trials, task=self._task), self._gate.repeats)

    async def _outcomes(self, trials: SandboxTrials, patch: str, explain: bool = False) -> SuiteResult:
        run = await trials.persistently(
            lambda: outcomes(
                self._task,
                patch,
                self._candidate.test_files,
                backend=trials.backend,
                spec=trials.spec,
                timeout_s=trials.settings.verify_timeout_s,
                explain=explain,
            )
        )
        if self._task.test_run is None:
            return run
        named = {name: outcome for name, outcome in run.outcomes.items() if not re.search(r"\s", name)}
        return replace(run, outcomes=named)  # a log's lines don't tell where a name with spaces ends

    async def _problem(self, trials: SandboxTrials, test_ids: Sequence[str]) -> str:
        """What the commits tell; where that is little, also what the failing tests show."""
        one = self._candidate
        if not one.is_thin:
            return self._task.problem_statement
        run = await self._outcomes(trials, IDLE_PATCH, explain=True)
        symptom = told_symptom(run.failures, self._task.patch, one.test_files, test_ids)
        return told_problem(one.change, one.linked, self._task.patch, symptom)


def _why_none(found: Measured, after: Sequence[SuiteResult]) -> str:
    told = "no test fails in every run without the fix and passes in every run with it"
    if not after[0].outcomes and not after[0].failures:
        return f"{told}; with the fix none runs: {_telling_line(after[0].log)}"
    if found.unsteady:
        return f"{told}; {len(found.unsteady)} end differently from run to run"
    failing = [name for name, outcome in after[0].outcomes.items() if outcome in ("failed", "error")]
    files = [name for name in after[0].failures if "::" not in name]
    return told + (f"; with the fix {(files + failing)[0]} fails" if files or failing else "")


def _telling_line(log: str) -> str:
    lines = [line.strip() for line in log.splitlines() if line.strip()] or ["nothing is said"]
    return next((line for line in lines if re.search(r"\berror: (?!usage:)", line, re.I)), lines[-1])[:300]
