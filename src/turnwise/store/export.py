"""A run's episodes in the formats that other tools read: JSONL, Parquet, SWE-bench's preds.json and SWE-agent's .traj.

Every writer takes an open journal and raises StoreError where the file cannot be written; a file appears whole or not
at all.
"""

import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

from turnwise.errors import InputError
from turnwise.files import write_whole
from turnwise.store.journal import Journal
from turnwise.store.rows import EpisodeKey, StoredEpisode
from turnwise.types import Trajectory
from turnwise.usage import Prices, Usage

EXIT_STATUS = {"submitted": "submitted", "context_limit": "exit_context", "turn_limit": "exit_cost"}


Format = Literal["jsonl", "parquet", "preds", "traj"]


def export_episodes(journal: Journal, out: Path, format_: Format, stage: str | None = None) -> int:
    """Write a run's ended episodes (of one stage) in one of the formats; returns how many.

    `preds` and `traj` hold one attempt at each task: the first run of the stage's evaluation (without a stage, of the
    last one made), and for `traj` `out` is a folder. Raises InputError where there is nothing to export.
    """
    if format_ == "jsonl":
        return export_jsonl(journal, out, stage)
    if format_ == "parquet":
        return export_parquet(journal, out, stage)
    chosen = _first_attempts(journal, stage)
    if format_ == "preds":
        last = chosen[-1]
        return export_predictions(journal, out, model_name=last.stage, stage=last.stage, iteration=last.iteration)
    return len([export_traj(journal, key, out) for key in chosen])


def count_incomplete(journal: Journal, format_: Format, stage: str | None = None) -> int:
    """Of the episodes that `export_episodes` writes, how many have a patch that lacks some of the agent's work."""
    if format_ in ("jsonl", "parquet"):
        return sum(each.left_out > 0 for each in journal.episodes(stage))
    chosen = set(_first_attempts(journal, stage))
    return sum(each.left_out > 0 for each in journal.episodes(stage, "evaluate") if each.key in chosen)


def _first_attempts(journal: Journal, stage: str | None) -> list[EpisodeKey]:
    """The first run of the last evaluation made. Raises InputError where there is none."""
    keys = [key for key in journal.keys(stage, "evaluate") if key.member == 0]
    if not keys:
        raise InputError(f"{journal.path}: no evaluation episodes{f' of stage {stage}' if stage else ''} to export")
    last = keys[-1]
    return [key for key in keys if (key.stage, key.iteration) == (last.stage, last.iteration)]


def export_jsonl(journal: Journal, path: Path, stage: str | None = None, purpose: str | None = None) -> int:
    """One JSON object a line for every ended episode, tokens and turns included; returns how many."""
    count = 0
    with write_whole(path) as out:
        for episode in _ended(journal, stage, purpose):
            out.write(json.dumps(_record(episode), ensure_ascii=False).encode() + b"\n")
            count += 1
    return count


def export_parquet(journal: Journal, path: Path, stage: str | None = None, purpose: str | None = None) -> int:
    """The records of `export_jsonl` as one Parquet table; needs the extra `turnwise[parquet]`."""
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError as error:
        raise InputError("Parquet needs pyarrow: pip install 'turnwise[parquet]'") from error
    records = [_flat(_record(episode)) for episode in _ended(journal, stage, purpose)]
    if not records:
        raise InputError(f"{journal.path}: no ended episode to export")
    with write_whole(path) as out:
        parquet.write_table(pyarrow.Table.from_pylist(records), out)
    return len(records)


def export_predictions(
    journal: Journal, path: Path, *, model_name: str, stage: str, iteration: int = 0, member: int = 0
) -> int:
    """SWE-bench's preds.json: the patches that one evaluation run (`member`) of a stage ended with, by instance id.

    An episode that the infrastructure ended before it had a patch has none to give and is left out.
    """
    predictions = {
        episode.key.task_id: {
            "model_name_or_path": model_name,
            "instance_id": episode.key.task_id,
            "model_patch": episode.patch,
        }
        for episode in _ended(journal, stage, "evaluate")
        if (episode.key.iteration, episode.key.member) == (iteration, member) and _predicts(episode)
    }
    with write_whole(path) as out:
        out.write(json.dumps(dict(sorted(predictions.items())), indent=2).encode())
    return len(predictions)


def export_traj(journal: Journal, key: EpisodeKey, folder: Path) -> Path:
    """One episode as `<task>.traj` in SWE-agent's form; returns the file's path. InputError where it has not ended."""
    episode = journal.episode(key)
    if episode is None or episode.stop_reason is None:
        raise InputError(f"{journal.path}: no ended episode {key}")
    path = folder / f"{key.task_id}.traj"
    with write_whole(path) as out:
        out.write(json.dumps(_traj(episode, journal.prices()), indent=2, ensure_ascii=False).encode())
    return path


def _ended(journal: Journal, stage: str | None, purpose: str | None) -> Iterator[StoredEpisode]:
    for key in journal.keys(stage, purpose):
        episode = journal.episode(key)
        if episode is not None and episode.stop_reason is not None:
            yield episode


def _predicts(episode: StoredEpisode) -> bool:
    return bool(episode.patch) or not (episode.stop_reason and episode.stop_reason.is_infrastructure)


def _record(episode: StoredEpisode) -> dict[str, Any]:
    trajectory = episode.trajectory()
    verdict = trajectory.verdict
    turns = [
        {
            **{"response": turn.response, "command": turn.command, "format_error": turn.format_error},
            **{"observation": turn.observation, "exit_code": turn.exit_code, "start": turn.start, "stop": turn.stop},
            **{"policy_version": turn.policy_version, "sample_s": turn.sample_s, "exec_s": turn.exec_s},
            "usage": None if turn.usage is None else asdict(turn.usage),
        }
        for turn in trajectory.turns
    ]
    return {
        **{"episode_id": trajectory.episode_id, "stage": episode.key.stage, "purpose": episode.key.purpose},
        **{"iteration": episode.key.iteration, "instance_id": trajectory.task_id, "member": episode.key.member},
        **{"stop_reason": str(trajectory.stop_reason), "patch": trajectory.patch, "resolved": trajectory.resolved},
        **{"reward": trajectory.reward, "rewards": dict(trajectory.rewards), "wall_s": episode.wall_s},
        "verdict": None if verdict is None else str(verdict.kind),
        "tripwires": [] if verdict is None else list(verdict.rules),
        "left_out": list(trajectory.left_out),
        "turns": turns,
        "token_ids": trajectory.token_ids_T.tolist(),
        "action_mask": trajectory.action_mask_T.tolist(),
        "behavior_logprobs": trajectory.behavior_logprobs_T.tolist(),
    }


def _flat(record: dict[str, Any]) -> dict[str, Any]:
    """Reward components differ between runs, so in a table they are one JSON column."""
    return {**record, "rewards": json.dumps(record["rewards"])}


def _traj(episode: StoredEpisode, prices: Prices | None) -> dict[str, Any]:
    trajectory = episode.trajectory()
    steps = [
        {
            **{"action": turn.command or "", "observation": turn.observation, "response": turn.response},
            **{"thought": turn.response.split("```")[0].strip(), "execution_time": turn.exec_s, "state": {}},
        }
        for turn in trajectory.turns
    ]
    stats = {**_tokens(trajectory, prices), "api_calls": len(steps)}
    status = EXIT_STATUS.get(str(trajectory.stop_reason), f"exit_{trajectory.stop_reason}")
    info = {"exit_status": status, "submission": trajectory.patch or None, "model_stats": stats}
    return {"environment": trajectory.task_id, "trajectory": steps, "history": _history(episode), "info": info}


def _history(episode: StoredEpisode) -> list[dict[str, str]]:
    """The conversation as the model had it: what a last command printed, it never saw."""
    said = list(episode.messages)
    for stored in episode.turns:
        said += [("assistant", stored.turn.response), ("user", stored.turn.observation)]
    seen = said[:-1] if episode.turns else said
    return [{"role": role, "content": content, "agent": "main"} for role, content in seen]


def _tokens(trajectory: Trajectory, prices: Prices | None) -> dict[str, float]:
    """An endpoint's own count, over all requests, where there is one; else the sequence's tokens, each counted once.

    The count is a lower bound where `uncounted_calls` came without one.
    """
    counted = [turn.usage for turn in trajectory.turns if turn.usage is not None]
    if counted:
        total = sum(counted, Usage())
        more = {} if prices is None else {"instance_cost": prices.cost_usd(total)}
        if len(counted) < len(trajectory.turns):
            more["uncounted_calls"] = len(trajectory.turns) - len(counted)
        return {"tokens_sent": total.prompt_tokens, "tokens_received": total.completion_tokens, **more}
    sampled = int(trajectory.action_mask_T.sum())
    return {"tokens_sent": len(trajectory.token_ids_T) - sampled, "tokens_received": sampled}
