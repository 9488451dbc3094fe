"""Verdicts for trajectories: few at a time, never two for the same patch of the same task."""

import asyncio
from weakref import WeakValueDictionary

from turnwise.errors import ImageError, SandboxError, TaskError, TaskFailure
from turnwise.rewards import Verification
from turnwise.rollout.environments import Environments
from turnwise.store import Journal
from turnwise.types import StopReason, Task, Trajectory, Verdict, VerdictKind


class Verifier:
    """Asks the journal first, then the hidden tests; at most `at_once` test runs, beside the episodes being played.

    Episodes that end with the same patch at the same time wait for one verification and share its verdict.
    """

    def __init__(
        self,
        verification: Verification,
        environments: Environments,
        journal: Journal,
        *,
        retries: int,
        at_once: int,
    ) -> None:
        self._verification = verification
        self._environments = environments
        self._journal = journal
        self._retries = retries
        self._slots = asyncio.Semaphore(at_once)
        self._locks: WeakValueDictionary[tuple[str, str], asyncio.Lock] = WeakValueDictionary()

    async def verdict(self, task: Task, trajectory: Trajectory) -> Verdict | StopReason:
        """The verdict on the trajectory's patch.

        Without one, the reason: the infrastructure failed `retries` + 1 times, or the task's row is at fault.
        """
        what = (task.instance_id, trajectory.patch)
        lock = self._locks.get(what) or asyncio.Lock()
        self._locks[what] = lock
        async with lock:
            known = self._journal.verdict(*what)
            if known is not None:
                return known
            found = await self._verify(task, trajectory)
            if isinstance(found, Verdict):
                self._journal.record_verdict(*what, found)
            return found

    async def _verify(self, task: Task, trajectory: Trajectory) -> Verdict | StopReason:
        for attempt in range(self._retries + 1):
            try:
                return await self._once(task, trajectory.patch)
            except TaskFailure as error:
                self._journal.record_failure(error.cause, trajectory.episode_id, str(error), dropped=True)
                return StopReason.TASK_FAILURE
            except SandboxError as error:
                reason, dropped = StopReason.VERIFICATION_FAILURE, attempt == self._retries
                self._journal.record_failure(reason, trajectory.episode_id, str(error), dropped)
        return reason

    async def _once(self, task: Task, patch: str) -> Verdict:
        if not patch.strip():
            return Verdict(VerdictKind.EMPTY_PATCH)
        async with self._slots:
            spec = await self._environments.prepare(task)
            try:
                verdict = await self._verification.verdict(task, patch, spec)
            except (TaskError, ImageError) as error:
                raise TaskFailure(str(error)) from error
        if verdict.kind is VerdictKind.INFRASTRUCTURE_FAILURE:
            raise SandboxError(verdict.reason)
        return verdict
