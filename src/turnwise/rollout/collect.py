"""Many episodes at once: played, verified, paid; the infrastructure's failures retried, then left out and counted."""

import asyncio
import logging
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace

from turnwise.agent import AgentConfig, Renderer, with_tools
from turnwise.errors import ImageError, InfrastructureError, InputError, PolicyError, SandboxError, TaskFailure
from turnwise.policy import Policy
from turnwise.rewards import Verification, reward_components
from turnwise.rollout.environments import Environments
from turnwise.rollout.episode import run_episode
from turnwise.rollout.verification import Verifier
from turnwise.sandbox import Sandbox, SandboxBackend
from turnwise.store import EpisodeKey, Journal
from turnwise.together import together
from turnwise.types import Group, StopReason, Task, Trajectory

START_TIMEOUT_S = 120.0  # for a sandbox to come up
VERIFY_TIMEOUT_S = 600.0  # for one run of hidden tests, where nothing else is said
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class EpisodeRequest:
    """One episode to have: played now, or found in the journal."""

    key: EpisodeKey
    task: Task

    def __post_init__(self) -> None:
        if self.key.task_id != self.task.instance_id:
            raise InputError(f"episode {self.key} asks for task {self.task.instance_id}")


class Collector:
    """Plays episodes against one policy under one scaffold's settings.

    `concurrency` episodes are played at once, `verifications` test runs go on beside them. An episode, or a
    verification, that the infrastructure fails is tried again `retries` times; what the task's row makes impossible is
    given up at once. With `length_threshold` (L_thr, turns) training episodes are paid R + R_length (PAPER.md, Phase
    2); collected and evaluated ones are paid R alone.
    """

    def __init__(
        self,
        *,
        policy: Policy,
        renderer: Renderer,
        backend: SandboxBackend,
        environments: Environments,
        journal: Journal,
        agent_config: AgentConfig,
        seed: int,
        verification: Verification | None = None,
        concurrency: int = 32,
        verifications: int = 2,
        retries: int = 2,
        length_threshold: int | None = None,
    ) -> None:
        reward_components(False, 0, length_threshold, agent_config.max_turns)  # refuses a threshold out of range now
        self._policy = policy
        self._renderer = renderer
        self._backend = backend
        self._environments = environments
        self._journal = journal
        self._config = agent_config
        self._seed = seed
        self._retries = retries
        self._length_threshold = length_threshold
        self._slots = asyncio.Semaphore(concurrency)
        verification = verification or Verification(backend, timeout_s=VERIFY_TIMEOUT_S)
        self._verifier = Verifier(verification, environments, journal, retries=retries, at_once=verifications)

    async def collect(
        self, requests: Sequence[EpisodeRequest], progress: Callable[[Trajectory], None] | None = None
    ) -> list[Trajectory]:
        """The episodes asked for, in that order, verified and paid; less those that the infrastructure failed for good.

        What the journal has of them is not done again. `progress` is called with each trajectory as it is ready. Raises
        StoreError, or the error of a request that cannot be served; cancelled, it ends its sandboxes and leaves a
        journal to go on from. Raises InfrastructureError where every single episode failed: what is broken is no
        accident, and once it is mended the same call tries them all again.
        """
        ended = await together(self._one(request, progress) for request in requests)
        collected = [trajectory for trajectory in ended if trajectory is not None]
        if requests and not collected:
            self._journal.forget(request.key for request in requests)
            causes = ", ".join(f"{count} {cause}" for cause, count in self._journal.failures_by_cause().items())
            last = self._journal.failures()[-1].detail
            raise InfrastructureError(f"all {len(requests)} episodes failed ({causes}); the last one: {last}")
        return collected

    async def _one(self, request: EpisodeRequest, progress: Callable[[Trajectory], None] | None) -> Trajectory | None:
        trajectory = await self._played(request)
        if trajectory is None or trajectory.stop_reason.is_infrastructure:
            return None
        paid = await self._paid(request, trajectory)
        if paid is not None and progress is not None:
            progress(paid)
        return paid

    async def _played(self, request: EpisodeRequest) -> Trajectory | None:
        """The ended episode, verdict and rewards with it where it was paid before; None when it had to be given up."""
        for attempt in range(self._retries + 1):
            try:
                return await self._play(request)
            except (SandboxError, PolicyError, TaskFailure) as error:
                dropped = attempt == self._retries or isinstance(error, TaskFailure)
                self._journal.record_failure(error.cause, str(request.key), str(error), dropped)
                reason = StopReason(error.cause)
                if dropped:
                    break
        self._give_up(request.key, reason)
        return None

    async def _play(self, request: EpisodeRequest) -> Trajectory:
        known = self._journal.episode(request.key)
        if known is not None and known.stop_reason is not None:
            return known.trajectory()
        async with self._slots:
            spec = with_tools(await self._environments.prepare(request.task), self._config.window_lines)
            async with AsyncExitStack() as stack:
                return await run_episode(
                    request.key,
                    request.task,
                    policy=self._policy,
                    renderer=self._renderer,
                    sandbox=await _started(stack, self._backend.create(spec)),
                    config=self._config,
                    journal=self._journal,
                    seed=self._seed,
                    workdir=spec.workdir,
                )

    async def _paid(self, request: EpisodeRequest, trajectory: Trajectory) -> Trajectory | None:
        if trajectory.rewards:
            return trajectory
        verdict = await self._verifier.verdict(request.task, trajectory)
        if isinstance(verdict, StopReason):
            self._give_up(request.key, verdict, trajectory.patch)
            return None
        threshold = self._length_threshold if request.key.purpose == "train" else None
        rewards = reward_components(verdict.rewarded, len(trajectory.turns), threshold, self._config.max_turns)
        self._journal.record_rewards(request.key, rewards)
        return replace(trajectory, verdict=verdict, rewards=rewards)

    def _give_up(self, key: EpisodeKey, reason: StopReason, patch: str = "") -> None:
        self._journal.start_episode(key, ())  # it may have failed before it began
        self._journal.finish_episode(key, reason, patch)


async def _started(stack: AsyncExitStack, sandbox: Sandbox) -> Sandbox:
    try:
        async with asyncio.timeout(START_TIMEOUT_S):
            return await stack.enter_async_context(sandbox)
    except TimeoutError as error:
        raise SandboxError(f"the sandbox did not start in {START_TIMEOUT_S:.0f} s") from error
    except ImageError as error:
        raise TaskFailure(str(error)) from error


def groups(trajectories: Iterable[Trajectory]) -> list[Group]:
    """The trajectories by stage, iteration and task, in the order given.

    The infrastructure's failures are not among them, so they move no group's baseline. A group with fewer than two
    members has no statistics: it is left out, and the log says how many were.
    """
    members: defaultdict[tuple[str, str, int, str], list[Trajectory]] = defaultdict(list)
    for trajectory in trajectories:
        if not trajectory.stop_reason.is_infrastructure:
            key = EpisodeKey.parse(trajectory.episode_id)
            members[key.stage, key.purpose, key.iteration, key.task_id].append(trajectory)
    whole = [Group(key[-1], tuple(found)) for key, found in members.items() if len(found) >= 2]
    if len(whole) < len(members):
        _log.warning("%d of %d groups have one member left and are dropped", len(members) - len(whole), len(members))
    return whole
