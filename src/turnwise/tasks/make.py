"""Making tasks from a real package: its own suite says which small bugs are worth a task."""

import asyncio
import hashlib
import shutil
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from turnwise.errors import InfrastructureError, TaskError
from turnwise.tasks.baseline import SuiteRunner
from turnwise.tasks.environment import EnvironmentStore, commit_repository, copy_tree
from turnwise.tasks.hidden import without_tests
from turnwise.tasks.issue import issue_text
from turnwise.tasks.mutate import Mutant, enumerate_mutants, outermost_function
from turnwise.tasks.options import MakeOptions
from turnwise.tasks.package import Package, open_package
from turnwise.tasks.repository import diff, start_repository
from turnwise.together import together
from turnwise.types import SuiteResult, Task

_MAX_CHANGED_LINES = 4
_MAX_PER_LINE = 2
_SANDBOX_RETRIES = 2
_DEFAULTS = MakeOptions()


@dataclass(frozen=True)
class _Bug:
    """A mutant that some tests notice."""

    file: str
    mutant: Mutant
    fail_to_pass: tuple[str, ...]
    pass_to_pass: tuple[str, ...]
    result: SuiteResult


@dataclass(frozen=True)
class _Candidates:
    """One function's mutants in the order they are tried, and the test files that call the function."""

    file: str
    test_files: tuple[str, ...]
    mutants: tuple[Mutant, ...]


async def make_tasks(
    requirement: str,
    run_suite: SuiteRunner,
    environments: EnvironmentStore,
    options: MakeOptions = _DEFAULTS,
    on_task: Callable[[Task], None] = lambda task: None,
) -> list[Task]:
    """Tasks from the source distribution of `NAME` or `NAME==VERSION`, in the order of its files.

    A mutant becomes a task when the package's suite turns at least one test from pass to fail and leaves at least
    one passing in the same files, the same on every repeat. `on_task` sees each task once it is found. They have no
    split yet (`assign_splits`). Raises TaskError when the package cannot be used, and says why.
    """
    package = await open_package(requirement, run_suite, environments, options)
    try:
        queue = _candidates(package, options)
        workers = [_Worker(package, run_suite, options, index) for index in range(max(1, options.concurrency))]
        found: list[Task] = []
        await together(worker.work(queue, found, on_task) for worker in workers)
    finally:
        package.close()
    if not found:
        raise TaskError(f"{requirement}: its tests noticed none of the bugs tried; allow larger functions or more time")
    return sorted(found, key=lambda task: (task.meta["file"], task.meta["lineno"], task.instance_id))


def _candidates(package: Package, options: MakeOptions) -> Iterator[_Candidates]:
    """The functions that tests call, each with its mutants, in an order that the seed decides."""
    functions: dict[tuple[str, str, int], list[Mutant]] = defaultdict(list)
    for file, text in package.modules.items():
        for mutant in enumerate_mutants(text, options.kinds, options.max_function_lines):
            if mutant.end_lineno - mutant.lineno < _MAX_CHANGED_LINES:
                functions[file, mutant.function, mutant.function_lineno].append(mutant)
    for key in sorted(functions, key=lambda key: _chance(options.seed, *key)):
        file, _, lineno = key
        place = package.places[file][lineno]
        covering = tuple(sorted(f for f, base in package.baseline.items() if place in base.called))
        if covering and sum(package.baseline[f].duration_s for f in covering) <= options.max_test_s:
            yield _Candidates(file, covering, tuple(_mixed(functions[key], options.seed)))


def _mixed(mutants: Sequence[Mutant], seed: int) -> Iterator[Mutant]:
    """One of each kind in turn, so that no kind crowds out the others."""
    kinds: dict[str, list[Mutant]] = defaultdict(list)
    for mutant in sorted(mutants, key=lambda m: _chance(seed, m.lineno, m.kind, m.mutated)):
        kinds[mutant.kind].append(mutant)
    order = sorted(kinds, key=lambda kind: _chance(seed, kind, mutants[0].function))
    while any(kinds.values()):
        yield from (kinds[kind].pop() for kind in order if kinds[kind])


def _chance(*parts: object) -> str:
    return hashlib.sha256(repr(parts).encode()).hexdigest()


class _Worker:
    """Tries the mutants of one function after another in a root of its own."""

    def __init__(self, package: Package, run_suite: SuiteRunner, options: MakeOptions, index: int) -> None:
        self._package = package
        self._run_suite = run_suite
        self._options = options
        self._root = package.new_root(f"worker-{index}")
        self._spec = package.spec(self._root)
        self._index = index
        self._clean: dict[tuple[str, ...], bool] = {}

    async def work(self, queue: Iterator[_Candidates], found: list[Task], on_task: Callable[[Task], None]) -> None:
        """Take functions from the queue until it is empty or enough tasks are `found`."""
        for candidates in queue:
            kept: list[Mutant] = []
            for mutant in candidates.mutants[: self._options.tries]:
                if self._enough(found):
                    return
                if len(kept) >= self._options.per_function:
                    break
                if sum(k.lineno == mutant.lineno for k in kept) >= _MAX_PER_LINE:
                    continue
                task = await self._try(candidates, mutant)
                if task is not None and not self._enough(found):  # another worker may have found the last one meanwhile
                    kept.append(mutant)
                    found.append(task)
                    on_task(task)

    def _enough(self, found: list[Task]) -> bool:
        return bool(self._options.limit) and len(found) >= self._options.limit

    async def _try(self, candidates: _Candidates, mutant: Mutant) -> Task | None:
        clean = self._package.modules[candidates.file]
        path = self._root / candidates.file
        path.write_text(mutant.apply(clean), encoding="utf-8")
        try:
            bug = await self._notice(candidates, mutant)
            if bug is None or not await self._repeats(bug):
                return None
        finally:
            path.write_text(clean, encoding="utf-8")
        if not await self._passes_clean(bug):
            return None
        return await asyncio.to_thread(self._task, bug)

    async def _notice(self, candidates: _Candidates, mutant: Mutant) -> _Bug | None:
        """The bug, if tests that always pass fail now while others of the same files go on passing."""
        result = await self._run(candidates.test_files)
        passed = {i for file in candidates.test_files for i in self._package.baseline[file].passed}
        if result.timed_out or not passed <= set(result.outcomes):
            return None
        failing = sorted(i for i in passed if result.outcomes[i] in ("failed", "error"))
        files = {_file_of(test_id) for test_id in failing}
        passing = sorted(i for i in passed if _file_of(i) in files and result.outcomes[i] == "passed")
        if not failing or not passing or len(failing) > self._options.max_failing:
            return None
        return _Bug(candidates.file, mutant, tuple(failing), tuple(passing), result)

    async def _repeats(self, bug: _Bug) -> bool:
        """The same outcomes again, with just the files that verification will run."""
        for _ in range(self._options.repeats - 1):
            result = await self._run(_files_of(bug))
            failed = all(result.outcomes.get(i) in ("failed", "error") for i in bug.fail_to_pass)
            passed = all(result.outcomes.get(i) == "passed" for i in bug.pass_to_pass)
            if result.timed_out or not failed or not passed:
                return False
        return True

    async def _passes_clean(self, bug: _Bug) -> bool:
        """The test files pass together without the bug, as they do one by one."""
        files = _files_of(bug)
        if files not in self._clean:
            result = await self._run(files)
            passed = {i for file in files for i in self._package.baseline[file].passed}
            self._clean[files] = all(result.outcomes.get(i) == "passed" for i in passed)
        return self._clean[files]

    async def _run(self, test_files: Sequence[str]) -> SuiteResult:
        usual_s = sum(self._package.baseline[file].duration_s for file in test_files)
        timeout_s = min(3 * usual_s + 3, self._options.max_test_s + 3)
        for _ in range(_SANDBOX_RETRIES):
            try:
                return await self._run_suite(self._spec, test_files, timeout_s)
            except InfrastructureError:
                await asyncio.sleep(1)
        return await self._run_suite(self._spec, test_files, timeout_s)

    def _task(self, bug: _Bug) -> Task | None:
        """The bug as a row, or None where its tests cannot be hidden or its issue would tell too much or too little."""
        issue = issue_text({i: bug.result.failures[i] for i in bug.fail_to_pass}, bug.mutant.function, [bug.file])
        own = bug.mutant.name if not bug.mutant.name.startswith("__") else bug.mutant.function.split(".")[0]
        if tells_the_fix(issue, bug.mutant) or (self._options.named_only and own not in issue):
            return None
        root = self._package.scratch.folder / f"commit-{self._index}"
        shutil.rmtree(root, ignore_errors=True)
        root.mkdir()
        try:
            commit, patch, test_patch = self._commit(bug, root)
        except TaskError:  # its failing tests are not in their own file as functions: they cannot be hidden
            return None
        environment = self._package.environment
        name = environment.package
        digest = _chance(environment.sha256, bug.file, bug.mutant.lineno, bug.mutant.mutated)[:8]
        return Task(
            instance_id=f"{name}__{name}-{digest}",
            repo=f"{name}/{name}",
            base_commit=commit,
            patch=patch,
            test_patch=test_patch,
            problem_statement=issue,
            fail_to_pass=bug.fail_to_pass,
            pass_to_pass=bug.pass_to_pass,
            environment=environment,
            version=environment.version,
            environment_setup_commit=commit,
            meta=_meta(bug, self._package.modules[bug.file]),
        )

    def _commit(self, bug: _Bug, root: Path) -> tuple[str, str, str]:
        """(base commit, gold patch, hidden tests' patch)."""
        copy_tree(self._package.source, root)
        start_repository(root)
        mutated = bug.mutant.apply(self._package.modules[bug.file])
        (root / bug.file).write_text(mutated, encoding="utf-8")
        files = _files_of(bug)
        for file in files:
            hide_tests(root / file, [i for i in bug.fail_to_pass if _file_of(i) == file])
        commit = commit_repository(root, self._package.python)
        for file in (bug.file, *files):
            shutil.copyfile(self._package.source / file, root / file)
        return commit, diff(root, bug.file), diff(root, *files)


def hide_tests(path: Path, test_ids: Sequence[str]) -> None:
    """Take tests out of a file on disk. Raises TaskError where that is not possible."""
    try:
        path.write_bytes(without_tests(path.read_bytes().decode("utf-8"), test_ids).encode())
    except (UnicodeDecodeError, SyntaxError) as error:
        raise TaskError(f"{path.name}: cannot be read as Python ({error})") from error


def tells_the_fix(issue: str, mutant: Mutant) -> bool:
    """True where a line that the gold patch brings back stands in the issue."""
    lines = (line.strip() for line in mutant.original.splitlines())
    return any(len(line) > 8 and line in issue for line in lines)


def _file_of(test_id: str) -> str:
    return test_id.partition("::")[0]


def _files_of(bug: _Bug) -> tuple[str, ...]:
    return tuple(sorted({_file_of(test_id) for test_id in bug.fail_to_pass}))


def _meta(bug: _Bug, clean: str) -> dict[str, object]:
    mutant = bug.mutant
    return {
        "kind": mutant.kind,
        "function": mutant.function,
        "outermost_function": outermost_function(clean, mutant.lineno),
        "file": bug.file,
        "lineno": mutant.lineno,
        "original": mutant.original,
        "mutated": mutant.mutated,
        "function_lines": mutant.function_lines,
    }
