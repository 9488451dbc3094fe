"""The task gate over many tasks: a verdict a line, each in its own sandboxes, going on where it was interrupted."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol, TypeVar

from turnwise.errors import ImageError, InfrastructureError, InputError, SandboxError, TaskError
from turnwise.files import readable, require_regular
from turnwise.pipeline.recipe import SandboxTable
from turnwise.pipeline.workshop import open_backend, open_store, open_verification, sandbox_limits
from turnwise.rewards import find_pytest, require_graders
from turnwise.rollout import Environments
from turnwise.sandbox import Sandbox, SandboxBackend
from turnwise.store.lock import lock_run
from turnwise.tasks import Built, check_task
from turnwise.tasks.leaks import FINDS, Finds, Search, shows_fix
from turnwise.tasks.verdicts import Fault, GateVerdict, VerdictFile
from turnwise.together import together
from turnwise.types import ExecResult, SandboxSpec, Task, Verdict, VerdictKind

Tell = Callable[[GateVerdict], None]
T = TypeVar("T")
_SEARCH_TIMEOUT_S = 300.0
_HIDDEN = "/tmp/turnwise-hidden.diff"


class BuiltEnvironments(Environments, Protocol):
    """Environments that can also be built beforehand (turnwise.tasks.EnvironmentStore fits it)."""

    async def build(self, task: Task) -> Built:
        """Build a task's environment, or find it built. Raises TaskError."""
        ...


def validate_tasks(
    tasks: Sequence[Task],
    out: Path,
    *,
    sandbox: SandboxTable,
    repeats: int,
    workers: int,
    tell: Tell,
    repos: Path | None = None,
    environments: BuiltEnvironments | None = None,
) -> list[GateVerdict]:
    """Put tasks through the gate, `workers` at once, and append a line each to `out`; the verdicts on all of them.

    Tasks with a line already are not done again, unless the infrastructure had failed them. `tell` hears of each new
    verdict. Raises InputError where `out` is no verdicts file or sandboxes cannot be had, StoreError where another
    process writes it. KeyboardInterrupt passes through once all sandboxes are gone.
    """
    require_regular(out)
    require_graders(tasks)
    made = environments or open_store(sandbox, repos)
    out.parent.mkdir(parents=True, exist_ok=True)
    with lock_run(out), asyncio.Runner() as runner:
        file = VerdictFile(out)
        backend = open_backend(sandbox)
        gate = Gate(backend, made, sandbox, repeats)
        left = [task for task in tasks if task.instance_id not in file.verdicts]

        def keep(verdict: GateVerdict) -> None:
            file.add(verdict)
            tell(verdict)

        try:
            runner.run(_check_all(gate, left, workers, keep))
        finally:
            made.stop()
            runner.run(backend.close())
        return [file.verdicts[task.instance_id] for task in tasks]


async def _check_all(gate: "Gate", tasks: Sequence[Task], workers: int, keep: Tell) -> None:
    turn = asyncio.Semaphore(workers)

    async def one(task: Task) -> None:
        async with turn:
            verdict = await gate.verdict(task)
        keep(verdict)

    await together(one(task) for task in tasks)


@dataclass(frozen=True)
class Gate:
    """Judges one task after the other in sandboxes of one backend; the gold patch is run `repeats` times."""

    backend: SandboxBackend
    environments: BuiltEnvironments
    sandbox: SandboxTable
    repeats: int

    async def verdict(self, task: Task) -> GateVerdict:
        """A verdict whatever happens: what fails gets one too, with the reason."""
        return await self.judged(task, lambda trials: check_task(task, trials, self.repeats))

    async def judged(self, task: Task, judge: Callable[["SandboxTrials"], Awaitable[GateVerdict]]) -> GateVerdict:
        """What `judge` finds with the task's environment, `build_s` filled in; or the verdict that it cannot be had.

        An InfrastructureError is nobody's fault. An InputError that is no row's, such as an engine that is not there,
        is passed on: it would end every task alike.
        """
        started = time.monotonic()
        try:
            built = await self.environments.build(task)
            spec = await self.environments.prepare(task)
        except TaskError as error:
            return refused(task, Fault.ENVIRONMENT, str(error), build_s=time.monotonic() - started)
        except InfrastructureError as error:
            return refused(task, Fault.INFRASTRUCTURE, str(error))
        try:
            limited = replace(spec, limits=sandbox_limits(self.sandbox))
            found = await judge(SandboxTrials(task, self.backend, limited, self.sandbox))
        except (TaskError, ImageError) as error:
            return refused(task, Fault.ROW, str(error), built.build_s)
        except (InfrastructureError, OSError) as error:
            return refused(task, Fault.INFRASTRUCTURE, str(error), built.build_s)
        except InputError:
            raise
        except Exception as error:  # nobody foresaw it, and it must not end the tasks beside this one
            return refused(task, Fault.ROW, f"{type(error).__name__}: {error}", built.build_s)
        remarks = [text for text in (found.reason, _log_alone(task)) if text]
        return found.model_copy(update={"build_s": round(built.build_s, 2), "reason": "; ".join(remarks) or None})


@dataclass(frozen=True)
class SandboxTrials:
    """What the gate tries on one task; what the infrastructure fails is tried again."""

    task: Task
    backend: SandboxBackend
    spec: SandboxSpec
    settings: SandboxTable

    async def verify(self, patch: str, network: bool = False) -> Verdict:
        spec = replace(self.spec, network=network)

        async def once() -> Verdict:
            verdict = await open_verification(self.backend, self.settings).verdict(self.task, patch, spec)
            if verdict.kind is VerdictKind.INFRASTRUCTURE_FAILURE:
                raise SandboxError(verdict.reason)
            return verdict

        return await self.persistently(once)

    async def variants(self) -> int:
        verification = open_verification(self.backend, self.settings)
        return await self.persistently(lambda: verification.make_variants(self.task, self.spec))

    async def leaks(self) -> Sequence[str]:
        return await self.persistently(self._leaks)

    async def persistently(self, attempt: Callable[[], Awaitable[T]]) -> T:
        """What `attempt` gives, tried again where the sandbox fails. Raises SandboxError in the end."""
        for _ in range(self.settings.retries):
            try:
                return await attempt()
            except SandboxError:
                await asyncio.sleep(1)
        return await attempt()

    async def _leaks(self) -> Sequence[str]:
        """Raises TaskError where the hidden tests do not fit the repository."""
        search = Search(self.task)
        async with self.backend.create(self.spec) as sandbox:
            done = await sandbox.exec(search.command, _SEARCH_TIMEOUT_S)
            if done.exit_code:
                raise SandboxError(f"the repository in the sandbox cannot be searched: {_last_line(done)}")
            finds = search.told((await sandbox.read(FINDS)).decode("utf-8", "surrogateescape"))
            leaks = [*finds.leaks, *await self._copies(sandbox, search, finds)]
            await self._require_fitting_tests(sandbox)
        return [readable(leak) for leak in leaks]

    async def _copies(self, sandbox: Sandbox, search: Search, finds: Finds) -> list[str]:
        leaks = []
        for path in finds.copies:
            copy = await _text(sandbox, path)
            for place in search.places(path):
                if shows_fix(copy, await _text(sandbox, place), search.added[place]):
                    leaks.append(f"{path} has the solution's {place}")
        return leaks

    async def _require_fitting_tests(self, sandbox: Sandbox) -> None:
        if self.task.test_patch.strip():
            await sandbox.write(_HIDDEN, self.task.test_patch.rstrip("\n").encode() + b"\n")
            command = f"git -c safe.directory='*' apply --check --whitespace=nowarn {_HIDDEN}"
            done = await sandbox.exec(command, _SEARCH_TIMEOUT_S)
            if done.exit_code:
                raise TaskError(f"field 'test_patch' does not apply to its repository: {_last_line(done)}")


def refused(task: Task, fault: Fault, reason: str, build_s: float = 0.0) -> GateVerdict:
    """The verdict on a task that did not come as far as the gate's own runs."""
    return GateVerdict(
        instance_id=task.instance_id, admitted=False, reason=reason, fault=fault, build_s=round(build_s, 2)
    )


def _log_alone(task: Task) -> str:
    """A word on a test command whose outcomes are not recorded, which a patch can print (docs/tasks.md)."""
    only_log = task.test_run is not None and find_pytest(task.test_run.command) is None
    return "its test command is judged by its log alone" if only_log else ""


def _last_line(done: ExecResult) -> str:
    return (done.output.strip().splitlines() or [f"exit code {done.exit_code}"])[-1]


async def _text(sandbox: Sandbox, path: str) -> str:
    """A file's text; empty where there is none."""
    try:
        return (await sandbox.read(path)).decode("utf-8", errors="replace")
    except FileNotFoundError:
        return ""
