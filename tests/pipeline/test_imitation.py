"""What fine-tuning learns from: resolved episodes, behind the opening that the trained model will see."""

from dataclasses import replace

import numpy as np

from turnwise.pipeline.imitation import kept_in_order, with_opening
from turnwise.types import StopReason, Trajectory, Turn, Verdict, VerdictKind


def episode(name: str = "e", kind: VerdictKind = VerdictKind.RESOLVED) -> Trajectory:
    turns = (
        Turn(0, "a", "a", None, "o", 0, start=3, stop=5, policy_version=0, sample_s=0, exec_s=0),
        Turn(1, "b", "b", None, "", 0, start=6, stop=7, policy_version=0, sample_s=0, exec_s=0),
    )
    ids, mask = np.array([90, 91, 92, 1, 2, 50, 3]), np.array([0, 0, 0, 1, 1, 0, 1], np.bool_)
    logprobs = np.array([0, 0, 0, -1, -2, 0, -3], np.float32)
    return Trajectory(name, "t", ids, mask, logprobs, turns, StopReason.SUBMITTED, verdict=Verdict(kind))


def test_another_opening_moves_every_span_with_its_tokens() -> None:
    moved = with_opening(episode(), [80])
    assert moved.token_ids_T.tolist() == [80, 1, 2, 50, 3]
    assert moved.action_mask_T.tolist() == [False, True, True, False, True]
    assert moved.behavior_logprobs_T.tolist() == [0, -1, -2, 0, -3]
    assert [(turn.start, turn.stop) for turn in moved.turns] == [(1, 3), (4, 5)]
    assert moved.token_ids_T.dtype == np.int64


def test_only_the_resolved_are_kept_in_an_order_of_the_seed() -> None:
    episodes = [episode(str(n)) for n in range(9)] + [episode("bad", VerdictKind.UNRESOLVED)]
    episodes += [replace(episode("unverified"), verdict=None)]
    names = [kept.episode_id for kept in kept_in_order(episodes, seed=1)]
    assert sorted(names) == [str(n) for n in range(9)]
    assert names == [kept.episode_id for kept in kept_in_order(episodes, seed=1)]
    assert names != [kept.episode_id for kept in kept_in_order(episodes, seed=2)]
