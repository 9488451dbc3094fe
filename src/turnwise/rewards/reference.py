"""What is known of a task by its gold patch: its files, how the tests end with it, and mutated tests that it fails."""

import asyncio
import json
import random
import secrets
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from hashlib import blake2b
from pathlib import Path

from turnwise.errors import SandboxError
from turnwise.files import write_text_whole
from turnwise.rewards import mutation
from turnwise.rewards.changes import changes
from turnwise.rewards.grading import Grader
from turnwise.rewards.judge import judge
from turnwise.rewards.protect import hidden_files
from turnwise.rewards.sources import decode_source, encode_source
from turnwise.rewards.suite import with_suite
from turnwise.rewards.trial import GIT_APPLY, HIDDEN_PATH, apply_patch, run_hidden_tests, with_newline
from turnwise.sandbox import SandboxBackend
from turnwise.types import SandboxSpec, Task, Verdict, VerdictKind

VARIANTS = 4
_MUTATED = "/tmp/turnwise-mutated"
_FAILS = ("failed", "error")


@dataclass(frozen=True)
class Variant:
    """Hidden tests that ask for something else than the task's own, as a patch to the base commit.

    `failing` are the tests, by id, that fail with the gold patch because of that.
    """

    patch: bytes
    failing: frozenset[str]


class Reference:
    """The gold patch of one task, tried in sandboxes at most once each: what `verify` compares other patches with.

    Variants are kept in `folder`, where there is one, for later processes: the gate makes all of them.
    """

    def __init__(
        self,
        task: Task,
        grader: Grader | None,
        backend: SandboxBackend,
        spec: SandboxSpec,
        timeout_s: float,
        folder: Path | None = None,
    ) -> None:
        self._task, self._grader = task, grader
        self._backend, self._spec, self._timeout_s = backend, spec, timeout_s
        self._folder = folder
        self._lock = asyncio.Lock()
        self._files: Mapping[str, bytes | None] | None = None
        self._verdict: Verdict | None = None
        self._variants: dict[int, Variant] = {}

    async def files(self) -> Mapping[str, bytes | None]:
        """The files that the gold patch changes, as it leaves them. Raises SandboxError."""
        async with self._lock:
            if self._files is None:
                self._files = await self.files_of(self._task.patch)
            return self._files

    async def files_of(self, patch: str) -> Mapping[str, bytes | None]:
        """The files that a patch changes, as it leaves them. Raises PatchDoesNotApply, SandboxError."""
        async with self._backend.create(self._spec) as sandbox:
            return await apply_patch(self._task, patch, sandbox)

    async def outcomes(self) -> Mapping[str, str]:
        """How the hidden tests end with the gold patch, by id. Raises SandboxError."""
        async with self._lock:
            if self._verdict is None:
                self._verdict = await self._judged(self._task.patch, None)
            return {**self._verdict.pass_to_pass, **self._verdict.fail_to_pass}

    async def base_files(self, paths: Mapping[str, bytes | None]) -> dict[str, bytes | None]:
        """These files as they are at the base commit. Raises SandboxError."""
        found: dict[str, bytes | None] = {}
        async with self._backend.create(self._spec) as sandbox:
            for path in paths:
                try:
                    found[path] = await sandbox.read(path)
                except FileNotFoundError:
                    found[path] = None
        return found

    async def drawn_variant(self) -> Variant:
        """One of the task's variants, drawn so that no patch can foresee it."""
        return await self.variant(secrets.randbelow(VARIANTS))

    async def variant(self, index: int) -> Variant:
        """A variant, made where it was not before; of one whose tests cannot be mutated nothing fails.

        Raises SandboxError.
        """
        async with self._lock:
            if index not in self._variants:
                self._variants[index] = self._stored(index) or await self._make(index)
            return self._variants[index]

    async def ending_with(self, patch: str, variant: Variant) -> Verdict:
        """The verdict that a patch gets from mutated tests. Raises SandboxError."""
        return await self._judged(patch, variant.patch)

    async def _judged(self, patch: str, tests: bytes | None) -> Verdict:
        async with self._backend.create(with_suite(self._spec)) as sandbox:
            run = await run_hidden_tests(self._task, patch, sandbox, self._timeout_s, tests=tests)
        return judge(self._task, run, self._grader)

    async def _make(self, index: int) -> Variant:
        tests = await self._mutated_tests(random.Random(f"{self._digest}/{index}"))
        failing: frozenset[str] = frozenset()
        if tests:
            verdict = await self._judged(self._task.patch, tests)
            outcomes = {**verdict.pass_to_pass, **verdict.fail_to_pass}
            failing = frozenset(test_id for test_id, word in outcomes.items() if word in _FAILS)
            if verdict.kind is VerdictKind.TESTS_TIMED_OUT:
                failing = frozenset()
        variant = Variant(tests, failing)
        if self._folder is not None:
            content = {"patch": variant.patch.decode("latin-1"), "failing": sorted(variant.failing)}
            await asyncio.to_thread(self._write, index, json.dumps(content))
        return variant

    async def _mutated_tests(self, chance: random.Random) -> bytes:
        """A patch to the base that brings the hidden tests mutated; b"" where nothing in them can be."""
        task, paths = self._task, sorted(path for path in hidden_files(self._task) if path.endswith((".py", ".test")))
        names, others = mutation.test_names(task.fail_to_pass), mutation.test_names(task.pass_to_pass)
        apply = f"{GIT_APPLY} {HIDDEN_PATH}" if task.test_patch.strip() else "true"
        steps, changed = [apply], False
        async with self._backend.create(self._spec) as sandbox:
            await sandbox.write(HIDDEN_PATH, with_newline(task.test_patch).encode())
            done = await sandbox.exec(f"({apply}) </dev/null", self._timeout_s)
            if done.exit_code:
                raise SandboxError(f"the hidden tests do not apply: {done.output.strip()[-200:]}")
            for number, path in enumerate(paths):
                try:
                    content = await sandbox.read(path)
                except FileNotFoundError:
                    continue
                mutated = _mutate(path, content, names, others, chance)
                changed |= mutated != content
                await sandbox.write(f"{_MUTATED}/{number}", mutated)
                steps.append(f"cp {_MUTATED}/{number} {shlex.quote(path)}")
            if not changed:
                return b""
            undo = apply.replace("apply ", "apply -R ", 1)
            await sandbox.exec(f"({undo}) </dev/null", self._timeout_s)
            return await changes(sandbox, [" && ".join(steps)], paths)

    @cached_property
    def _digest(self) -> str:
        """Names the task's tests and the way in which they are mutated."""
        task = self._task
        facts = [task.base_commit, task.patch, task.test_patch, *task.fail_to_pass, *task.pass_to_pass]
        source = Path(mutation.__file__).read_text(encoding="utf-8")
        return blake2b(
            "\0".join([task.instance_id, *facts, source]).encode(errors="replace"), digest_size=16
        ).hexdigest()

    def _path(self, index: int) -> Path:
        assert self._folder is not None
        return self._folder / f"{self._digest}-{index}.json"

    def _write(self, index: int, text: str) -> None:
        self._path(index).parent.mkdir(parents=True, exist_ok=True)
        write_text_whole(self._path(index), text)

    def _stored(self, index: int) -> Variant | None:
        if self._folder is None or not self._path(index).exists():
            return None
        content = json.loads(self._path(index).read_text(encoding="utf-8"))
        return Variant(content["patch"].encode("latin-1"), frozenset(content["failing"]))


def _mutate(path: str, content: bytes, names: set[str], others: set[str], chance: random.Random) -> bytes:
    """A test file mutated; as it was where it is no Python that this Python reads."""
    try:
        source, encoding = decode_source(content)
        if path.endswith(".py"):
            return encode_source(mutation.mutate_tests(source, names, others, chance), encoding)
        return encode_source(mutation.mutate_cases(source, names), encoding)
    except (SyntaxError, ValueError, RecursionError):
        return content


class References:
    """The references of many tasks, each made when it is first asked for."""

    def __init__(self, backend: SandboxBackend, timeout_s: float, folder: Path | None = None) -> None:
        self._backend, self._timeout_s, self._folder = backend, timeout_s, folder
        self._known: dict[str, Reference] = {}

    def of(self, task: Task, grader: Grader | None, spec: SandboxSpec) -> Reference:
        """The reference of a task whose environment is `spec`."""
        if task.instance_id not in self._known:
            found = Reference(task, grader, self._backend, spec, self._timeout_s, self._folder)
            self._known[task.instance_id] = found
        return self._known[task.instance_id]
