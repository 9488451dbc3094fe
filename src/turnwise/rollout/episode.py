"""One episode: the opening, then sample, act, observe until it ends; recorded turn by turn, resumed from the record."""

import asyncio
import hashlib
import time
from collections.abc import Awaitable, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np

from turnwise.agent import (
    AgentConfig,
    Message,
    Renderer,
    Work,
    act,
    base_of,
    opening_messages,
    parse_response,
    run_command,
    take_work,
)
from turnwise.agent.observation import Observation
from turnwise.errors import ContentRefused, ContextExceeded, PolicyError, SandboxError
from turnwise.policy import Policy
from turnwise.sandbox import Sandbox
from turnwise.store import EpisodeKey, Journal, StoredEpisode, StoredTurn
from turnwise.types import Sample, Sampling, StopReason, Task, Trajectory, Turn

T = TypeVar("T")
SAMPLE_TIMEOUT_S = 900.0  # for one response; an engine that takes longer has hung
ACT_GRACE_S = 60.0  # beyond a command's own time-out, for a sandbox that does not keep it


async def run_episode(
    key: EpisodeKey,
    task: Task,
    *,
    policy: Policy,
    renderer: Renderer,
    sandbox: Sandbox,
    config: AgentConfig,
    journal: Journal,
    seed: int,
    workdir: str = "/testbed",
) -> Trajectory:
    """Play one episode in a fresh sandbox, whose repository lies at `workdir`, to its end; it is not yet verified.

    An episode that the journal knows goes on after its last finished turn: the recorded commands are run again in the
    sandbox (nothing is sampled twice). Raises PolicyError and SandboxError for the infrastructure's failures, after
    which the episode can be played on in another sandbox.
    """
    episode = journal.episode(key)
    if episode is None:
        episode = _begin(key, opening_messages(task, config, workdir), renderer, journal)
    if episode.stop_reason is not None:
        return episode.trajectory()
    player = _Player(episode, task, policy, renderer, sandbox, config, journal, seed, workdir)
    try:
        return await player.play()
    finally:
        await policy.end_session(str(key))


def turn_seed(run_seed: int, episode_id: str, turn_index: int) -> int:
    """The seed of one response: 63 bits that are the same in every process and on every machine.

    >>> turn_seed(0, "rl-1/train/3/toolz__toolz-17/5", 2)
    8806297839667292355
    """
    words = f"{run_seed}\n{episode_id}\n{turn_index}".encode()
    return int.from_bytes(hashlib.blake2b(words, digest_size=8).digest()) >> 1


def _begin(key: EpisodeKey, messages: Sequence[Message], renderer: Renderer, journal: Journal) -> StoredEpisode:
    opening_ids = renderer.opening(messages)
    said = tuple((message.role, message.content) for message in messages)
    journal.start_episode(key, opening_ids, said)
    return StoredEpisode(key, np.asarray(opening_ids, np.int64), (), messages=said)


@dataclass(frozen=True)
class _Step:
    """What one response led to: the turn, and why the episode ends with it (None: it goes on)."""

    stored: StoredTurn
    stop_reason: StopReason | None


class _Player:
    """Plays one episode; `self._episode` is always what the journal holds."""

    def __init__(
        self,
        episode: StoredEpisode,
        task: Task,
        policy: Policy,
        renderer: Renderer,
        sandbox: Sandbox,
        config: AgentConfig,
        journal: Journal,
        seed: int,
        workdir: str,
    ) -> None:
        self._episode = episode
        self._task = task
        self._policy = policy
        self._renderer = renderer
        self._sandbox = sandbox
        self._config = config
        self._journal = journal
        self._seed = seed
        self._workdir = workdir
        self._base = task.base_commit
        self._history = _history(episode)

    async def play(self) -> Trajectory:
        self._base = await self._bounded(base_of(self._sandbox, self._base, self._workdir))
        await self._replay()
        if self._room() <= 0:  # the opening alone leaves no room for a response
            return self._end(StopReason.CONTEXT_LIMIT, Work(""), None)
        while True:
            try:
                step = await self._step()
            except ContextExceeded:  # by the endpoint's own word, whatever our limit says
                return self._end(StopReason.CONTEXT_LIMIT, Work(""), None)
            except ContentRefused:
                return self._end(StopReason.CONTENT_FILTER, Work(""), None)
            if step.stop_reason is not None:
                return self._end(step.stop_reason, await self._final_work(step.stop_reason), step.stored)
            self._journal.record_turn(self._episode.key, step.stored)
            self._episode = replace(self._episode, turns=(*self._episode.turns, step.stored))
            self._history += [*step.stored.token_ids_T.tolist(), *step.stored.observation_ids_T.tolist()]

    async def _replay(self) -> None:
        """Bring a fresh sandbox to where the recorded turns left theirs; what was never run has no exit code."""
        for stored in self._episode.turns:
            if stored.turn.command is not None and stored.turn.exit_code is not None:
                await self._bounded(run_command(self._sandbox, stored.turn.command, self._config))

    async def _step(self) -> _Step:
        index = len(self._episode.turns)
        started = time.perf_counter()
        sample = await self._sample(index)
        sample_s = time.perf_counter() - started if sample.sample_s is None else sample.sample_s
        response = self._renderer.decode(sample.token_ids)
        cut_by_context = not sample.stopped and self._room(len(sample.token_ids)) <= 0
        seen = not_run(response) if cut_by_context else await self._bounded(act(self._sandbox, response, self._config))
        start = len(self._history)
        turn = Turn(
            index=index,
            response=response,
            command=seen.command,
            format_error=seen.format_error,
            observation=seen.text,
            exit_code=seen.exit_code,
            start=start,
            stop=start + len(sample.token_ids),
            policy_version=sample.policy_version,
            sample_s=sample_s,
            exec_s=seen.exec_s,
            usage=sample.usage,
        )
        stop_reason = StopReason.CONTEXT_LIMIT if cut_by_context else self._stop_reason(turn, seen.submitted)
        return self._with_observation(turn, sample, stop_reason)

    def _with_observation(self, turn: Turn, sample: Sample, stop_reason: StopReason | None) -> _Step:
        """Put the observation's tokens behind the turn where it goes on; where they no longer fit, it does not."""
        observation_ids: list[int] = []
        if stop_reason is None:
            observation_ids = self._renderer.observation(turn.observation, stopped=sample.stopped)
            if self._room(turn.stop - turn.start + len(observation_ids), turn) <= 0:
                observation_ids, stop_reason = [], StopReason.CONTEXT_LIMIT
        stored = StoredTurn(
            turn,
            np.asarray(sample.token_ids, np.int64),
            np.asarray(sample.logprobs, np.float32),
            np.asarray(observation_ids, np.int64),
        )
        return _Step(stored, stop_reason)

    def _stop_reason(self, turn: Turn, submitted: bool) -> StopReason | None:
        turns = [*(stored.turn for stored in self._episode.turns), turn]
        last = turns[-self._config.max_consecutive_format_errors :]
        if submitted:
            return StopReason.SUBMITTED
        if len(last) == self._config.max_consecutive_format_errors and all(each.format_error for each in last):
            return StopReason.FORMAT_ERRORS
        if len(turns) >= self._config.max_turns:
            return StopReason.TURN_LIMIT
        if sum(each.sample_s + each.exec_s for each in turns) > self._config.episode_timeout_s:
            return StopReason.EPISODE_TIMEOUT
        return None

    def _room(self, more: int = 0, last: Turn | None = None) -> int:
        """Tokens left in the context when the history has `more` ids; `last` is the turn that brings them, if any."""
        turns = self._episode.turns
        counted = last or (turns[-1].turn if turns else None)
        return self._config.context_tokens - self._renderer.context_tokens(len(self._history) + more, counted)

    async def _sample(self, index: int) -> Sample:
        session = str(self._episode.key)
        sampling = Sampling(
            max_tokens=min(self._config.max_response_tokens, self._room()),
            stop_token_ids=tuple(self._renderer.stop_token_ids),
            seed=turn_seed(self._seed, session, index),
        )
        try:
            async with asyncio.timeout(SAMPLE_TIMEOUT_S):
                return await self._policy.sample(tuple(self._history), sampling, session)
        except TimeoutError as error:
            raise PolicyError(f"no response in {SAMPLE_TIMEOUT_S:.0f} s (episode {session}, turn {index})") from error

    async def _bounded(self, step: Awaitable[T]) -> T:
        limit_s = self._config.command_timeout_s + ACT_GRACE_S
        try:
            async with asyncio.timeout(limit_s):
                return await step
        except TimeoutError as error:
            raise SandboxError(f"no answer in {limit_s:.0f} s (episode {self._episode.key})") from error

    async def _final_work(self, stop_reason: StopReason) -> Work:
        """What is verified: the working tree's diff when the agent said `submit`, else nothing.

        The paper's submission is the diff at `submit`; an episode ended by a limit has submitted none, so its patch is
        empty and its terminal reward 0, however good the tree.
        """
        if stop_reason is not StopReason.SUBMITTED:
            return Work("")
        taking = take_work(self._sandbox, self._base, self._workdir, self._config.max_patch_bytes)
        return await self._bounded(taking)

    def _end(self, stop_reason: StopReason, work: Work, last_turn: StoredTurn | None) -> Trajectory:
        self._journal.finish_episode(self._episode.key, stop_reason, work.patch, last_turn, work.left_out)
        turns = self._episode.turns if last_turn is None else (*self._episode.turns, last_turn)
        self._episode = replace(
            self._episode, turns=turns, stop_reason=stop_reason, patch=work.patch, left_out=work.left_out
        )
        return self._episode.trajectory()


def not_run(response: str) -> Observation:
    """A response cut by the context's end is parsed, for the record, but not acted on: its end is missing."""
    parsed = parse_response(response)
    return Observation("", parsed.command, parsed.error, None, False, 0.0)


def _history(episode: StoredEpisode) -> list[int]:
    history: list[int] = episode.opening_ids_T.tolist()
    for stored in episode.turns:
        history += [*stored.token_ids_T.tolist(), *stored.observation_ids_T.tolist()]
    return history
