"""The values that a journal gives back."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from turnwise.errors import InputError
from turnwise.types import StopReason, Trajectory, Turn, Verdict, VerdictKind
from turnwise.usage import Usage

PURPOSES = ("collect", "train", "evaluate")


@dataclass(frozen=True, order=True)
class EpisodeKey:
    """Names one episode of a run; `str(key)` is its id. `purpose` is "collect", "train" or "evaluate".

    `member` numbers the attempts at one task: the member of a group in training, the run in evaluation.

    >>> str(EpisodeKey("rl-1", "train", 3, "toolz__toolz-17", 5))
    'rl-1/train/3/toolz__toolz-17/5'
    """

    stage: str
    purpose: str
    iteration: int
    task_id: str
    member: int

    def __post_init__(self) -> None:
        if self.purpose not in PURPOSES or "/" in self.stage + self.task_id:
            raise InputError(f"episode key: {self!r} needs a purpose of {PURPOSES} and no '/' in stage or task_id")

    def __str__(self) -> str:
        return f"{self.stage}/{self.purpose}/{self.iteration}/{self.task_id}/{self.member}"

    @classmethod
    def parse(cls, episode_id: str) -> "EpisodeKey":
        """The key behind an id; InputError when it is not one."""
        try:
            stage, purpose, iteration, task_id, member = episode_id.split("/")
            return cls(stage, purpose, int(iteration), task_id, int(member))
        except ValueError as error:
            raise InputError(f"not an episode id: {episode_id!r}") from error


@dataclass(frozen=True)
class StoredTurn:
    """A turn with its tokens. `token_ids_T` int64 and `logprobs_T` float32 are as sampled, stop token included.

    `observation_ids_T` int64 is what the environment's answer appended to the sequence; empty after the last turn.
    """

    turn: Turn
    token_ids_T: NDArray[np.int64]
    logprobs_T: NDArray[np.float32]
    observation_ids_T: NDArray[np.int64]


@dataclass(frozen=True)
class StoredEpisode:
    """An episode as far as it got: being run (`stop_reason` None), ended, or ended and paid (`rewards` not None)."""

    key: EpisodeKey
    opening_ids_T: NDArray[np.int64]
    turns: tuple[StoredTurn, ...]
    stop_reason: StopReason | None = None
    patch: str = ""
    verdict: Verdict | None = None
    rewards: Mapping[str, float] | None = None
    left_out: tuple[str, ...] = ()  # of the patch
    messages: tuple[tuple[str, str], ...] = ()  # (role, content) of what the opening's tokens say

    @property
    def wall_s(self) -> float:
        """Seconds spent on its turns, sampling and acting, over all the processes that worked on it."""
        return sum(stored.turn.sample_s + stored.turn.exec_s for stored in self.turns)

    def trajectory(self) -> Trajectory:
        """The episode as one flat sequence: opening, then each turn's sampled tokens and its observation's.

        Raises InputError while the episode has not ended.
        """
        if self.stop_reason is None:
            raise InputError(f"episode {self.key} has not ended yet")
        token_ids: list[NDArray[np.int64]] = [self.opening_ids_T]
        mask: list[NDArray[np.bool_]] = [np.zeros(len(self.opening_ids_T), np.bool_)]
        logprobs: list[NDArray[np.float32]] = [np.zeros(len(self.opening_ids_T), np.float32)]
        for stored in self.turns:
            seen = len(stored.observation_ids_T)
            token_ids += [stored.token_ids_T, stored.observation_ids_T]
            mask += [np.ones(len(stored.token_ids_T), np.bool_), np.zeros(seen, np.bool_)]
            logprobs += [stored.logprobs_T, np.zeros(seen, np.float32)]
        return Trajectory(
            episode_id=str(self.key),
            task_id=self.key.task_id,
            token_ids_T=np.concatenate(token_ids),
            action_mask_T=np.concatenate(mask),
            behavior_logprobs_T=np.concatenate(logprobs),
            turns=tuple(stored.turn for stored in self.turns),
            stop_reason=self.stop_reason,
            patch=self.patch,
            verdict=self.verdict,
            rewards=self.rewards or {},
            left_out=self.left_out,
        )


@dataclass(frozen=True)
class EpisodeSummary:
    """One ended episode without its text: what tables and curves are drawn from.

    `tokens` counts the sampled ones; `usage` is what an endpoint counted, where one was asked and said, for all turns
    but `uncounted_turns`.
    """

    key: EpisodeKey
    stop_reason: StopReason
    verdict: str | None  # a VerdictKind, None where nothing was verified
    rewards: Mapping[str, float]
    turns: int
    format_errors: int
    tokens: int
    wall_s: float
    usage: Usage | None = None
    rules: tuple[str, ...] = ()  # the tripwires of a suspected patch
    left_out: int = 0  # how many things of the agent's work its patch does not carry
    uncounted_turns: int = 0

    @property
    def resolved(self) -> bool:
        """True where evaluation counts the task as resolved."""
        return self.verdict is not None and VerdictKind(self.verdict).scores

    @property
    def rewarded(self) -> bool:
        """True where training rewards the patch."""
        return self.verdict is not None and VerdictKind(self.verdict).is_rewarded


@dataclass(frozen=True)
class Update:
    """One optimizer step's metrics. `step` counts within its iteration, from 0."""

    stage: str
    iteration: int
    step: int
    metrics: Mapping[str, float]


@dataclass(frozen=True)
class Evaluation:
    """The figures of one evaluation as the pipeline computed them: JSON values by name."""

    stage: str
    iteration: int
    figures: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class InfraFailure:
    """One failure of the infrastructure: its cause, where and why. `dropped`: the episode was given up."""

    cause: str
    episode_id: str
    detail: str
    dropped: bool
