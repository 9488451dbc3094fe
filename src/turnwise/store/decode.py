"""From the journal's rows to its values."""

import json
import sqlite3
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from turnwise.store.rows import EpisodeKey, EpisodeSummary, Evaluation, InfraFailure, StoredEpisode, StoredTurn, Update
from turnwise.types import FormatError, StopReason, Turn, Verdict, VerdictKind
from turnwise.usage import Usage

FILTER = (
    "WHERE e.stage = coalesce(:stage, e.stage) AND e.purpose = coalesce(:purpose, e.purpose)"
    " AND e.iteration = coalesce(:iteration, e.iteration)"
)
SUMMARY_QUERY = f"""
SELECT e.id, e.stop_reason, e.rewards, v.kind AS verdict, coalesce(v.rules, '[]') AS rules,
    json_array_length(e.left_out) AS left_out, count(t.turn) AS turns,
    count(t.format_error) AS format_errors,
    coalesce(sum(coalesce(json_extract(t.usage, '$[2]'), t.stop - t.start)), 0) AS tokens,
    count(t.usage) AS counted, sum(json_extract(t.usage, '$[0]')) AS prompt_tokens,
    sum(json_extract(t.usage, '$[1]')) AS cached_tokens, sum(json_extract(t.usage, '$[2]')) AS completion_tokens,
    coalesce(sum(t.sample_s + t.exec_s), 0) AS wall_s
FROM episodes AS e LEFT JOIN turns AS t ON t.episode_id = e.id
    LEFT JOIN verdicts AS v ON v.task_id = e.task_id AND v.patch_hash = e.patch_hash
{FILTER} AND e.stop_reason IS NOT NULL GROUP BY e.rowid ORDER BY e.rowid
"""


def ids(blob: bytes) -> NDArray[np.int64]:
    """Token ids from their bytes."""
    return np.frombuffer(blob, dtype="<i4").astype(np.int64)


def episode(row: sqlite3.Row, turns: Sequence[sqlite3.Row], found: Verdict | None) -> StoredEpisode:
    """An episode with its turns, whatever state it is in."""
    return StoredEpisode(
        key=EpisodeKey.parse(row["id"]),
        opening_ids_T=ids(row["opening"]),
        turns=tuple(turn(each) for each in turns),
        stop_reason=None if row["stop_reason"] is None else StopReason(row["stop_reason"]),
        patch=row["patch"],
        verdict=found,
        rewards=None if row["rewards"] is None else json.loads(row["rewards"]),
        left_out=tuple(json.loads(row["left_out"])),
        messages=tuple((role, content) for role, content in json.loads(row["messages"])),
    )


def turn(row: sqlite3.Row) -> StoredTurn:
    """A turn with its tokens."""
    plain = Turn(
        index=row["turn"],
        response=row["response"],
        command=row["command"],
        format_error=None if row["format_error"] is None else FormatError(row["format_error"]),
        observation=row["observation"],
        exit_code=row["exit_code"],
        start=row["start"],
        stop=row["stop"],
        policy_version=row["policy_version"],
        sample_s=row["sample_s"],
        exec_s=row["exec_s"],
        usage=None if row["usage"] is None else Usage(*json.loads(row["usage"])),
    )
    logprobs: NDArray[np.float32] = np.frombuffer(row["logprobs"], dtype="<f4")
    return StoredTurn(plain, ids(row["token_ids"]), logprobs, ids(row["observation_ids"]))


def verdict(row: sqlite3.Row) -> Verdict:
    """A verdict with its outcomes by test."""
    fail_to_pass, pass_to_pass = json.loads(row["fail_to_pass"]), json.loads(row["pass_to_pass"])
    return Verdict(
        kind=VerdictKind(row["kind"]),
        fail_to_pass=fail_to_pass,
        pass_to_pass=pass_to_pass,
        log=row["log"],
        duration_s=row["duration_s"],
        reason=row["reason"],
        rules=tuple(json.loads(row["rules"])),
    )


def summary(row: sqlite3.Row) -> EpisodeSummary:
    """A row of `SUMMARY_QUERY`."""
    return EpisodeSummary(
        key=EpisodeKey.parse(row["id"]),
        stop_reason=StopReason(row["stop_reason"]),
        verdict=row["verdict"],
        rewards=json.loads(row["rewards"] or "{}"),
        turns=row["turns"],
        format_errors=row["format_errors"],
        tokens=row["tokens"],
        usage=Usage(row["prompt_tokens"], row["cached_tokens"], row["completion_tokens"]) if row["counted"] else None,
        uncounted_turns=row["turns"] - row["counted"],
        wall_s=row["wall_s"],
        rules=tuple(json.loads(row["rules"])),
        left_out=row["left_out"],
    )


def update(row: sqlite3.Row) -> Update:
    """An optimizer step."""
    return Update(row["stage"], row["iteration"], row["step"], json.loads(row["metrics"]))


def evaluation(row: sqlite3.Row) -> Evaluation:
    """An evaluation's figures."""
    return Evaluation(row["stage"], row["iteration"], json.loads(row["figures"]))


def failure(row: sqlite3.Row) -> InfraFailure:
    """An infrastructure failure."""
    return InfraFailure(row["cause"], row["episode_id"], row["detail"], bool(row["dropped"]))
