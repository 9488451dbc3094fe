"""Exports, read back by the tools they are for."""

import json

import pytest
from pyarrow import parquet

from turnwise.errors import InputError, StoreError
from turnwise.store import EpisodeKey, Journal, count_incomplete, export_episodes, export_predictions
from turnwise.types import StopReason, Verdict, VerdictKind

from .test_journal import OPENING, stored_turn


@pytest.fixture
def journal(tmp_path):
    with Journal.open(tmp_path / "journal.sqlite", "recipe") as journal:
        for stage in ("base", "rft"):
            for member in (0, 1):
                key = EpisodeKey(stage, "evaluate", 0, "toolz__toolz-17", member)
                journal.start_episode(key, OPENING, [("system", "Rules."), ("user", "Issue.")])
                journal.record_turn(key, stored_turn(0, 3))
                patch = f"patch {stage} {member}"
                journal.finish_episode(key, StopReason.SUBMITTED, patch, stored_turn(1, 8, observation=()))
                journal.record_verdict(key.task_id, patch, Verdict(VerdictKind.RESOLVED))
                journal.record_rewards(key, {"resolved": 1.0})
        journal.start_episode(EpisodeKey("rft", "evaluate", 0, "toolz__toolz-18", 0), OPENING)
        yield journal


def test_jsonl_has_the_ended_episodes_with_tokens_and_turns(journal, tmp_path):
    assert export_episodes(journal, tmp_path / "out" / "episodes.jsonl", "jsonl", stage="base") == 2

    rows = [json.loads(line) for line in (tmp_path / "out" / "episodes.jsonl").read_text().splitlines()]
    assert [row["episode_id"] for row in rows] == [f"base/evaluate/0/toolz__toolz-17/{member}" for member in (0, 1)]
    assert (rows[0]["resolved"], rows[0]["reward"], rows[0]["stop_reason"]) == (True, 1.0, "submitted")
    assert rows[0]["token_ids"] == [1, 2, 3, 7, 8, 9, 4, 5, 7, 8, 9]
    assert [turn["command"] for turn in rows[0]["turns"]] == ["ls", "ls"]


def test_parquet_holds_the_same_rows(journal, tmp_path):
    assert export_episodes(journal, tmp_path / "episodes.parquet", "parquet") == 4

    table = parquet.read_table(tmp_path / "episodes.parquet")
    assert table.num_rows == 4
    row = table.to_pylist()[0]
    assert row["token_ids"] == [1, 2, 3, 7, 8, 9, 4, 5, 7, 8, 9]
    assert json.loads(row["rewards"]) == {"resolved": 1.0}


def test_predictions_are_those_of_one_run(journal, tmp_path):
    path = tmp_path / "preds.json"

    export_predictions(journal, path, model_name="mine", stage="base", member=1)
    assert json.loads(path.read_text()) == {
        "toolz__toolz-17": {
            "model_name_or_path": "mine",
            "instance_id": "toolz__toolz-17",
            "model_patch": "patch base 1",
        }
    }

    assert export_episodes(journal, path, "preds") == 1
    assert json.loads(path.read_text())["toolz__toolz-17"]["model_patch"] == "patch rft 0"


def test_what_patches_leave_out_and_trip_is_exported_and_counted(journal, tmp_path):
    path = tmp_path / "out"
    for stage, member in (("base", 0), ("base", 1), ("rft", 1)):
        key = EpisodeKey(stage, "evaluate", 0, "toolz__toolz-17", member)
        journal.finish_episode(key, StopReason.SUBMITTED, "other", left_out=["pipe: no file"])
    journal.record_verdict("toolz__toolz-17", "other", Verdict(VerdictKind.SUSPECTED, rules=("frames",)))

    export_episodes(journal, path, "jsonl")
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert [row["left_out"] for row in rows] == [["pipe: no file"], ["pipe: no file"], [], ["pipe: no file"]]
    assert [row["tripwires"] for row in rows] == [["frames"], ["frames"], [], ["frames"]]
    assert count_incomplete(journal, "jsonl") == 3
    assert count_incomplete(journal, "parquet", "base") == 2
    assert [count_incomplete(journal, "preds", stage) for stage in (None, "base", "rft")] == [0, 1, 0]


def test_traj_files_are_in_swe_agents_form(journal, tmp_path):
    assert export_episodes(journal, tmp_path / "trajs", "traj", stage="base") == 1

    traj = json.loads((tmp_path / "trajs" / "toolz__toolz-17.traj").read_text())
    assert traj["info"]["exit_status"] == "submitted"
    assert traj["info"]["submission"] == "patch base 0"
    assert [step["action"] for step in traj["trajectory"]] == ["ls", "ls"]
    assert [step["observation"] for step in traj["trajectory"]] == ["calc.py", "calc.py"]
    assert [each["role"] for each in traj["history"]] == ["system", "user", "assistant", "user", "assistant"]
    assert traj["history"][-2] == {"role": "user", "content": "calc.py", "agent": "main"}


def test_nothing_to_export_and_nowhere_to_write_are_said(journal, tmp_path):
    with pytest.raises(InputError, match="no evaluation episodes of stage rl-9"):
        export_episodes(journal, tmp_path / "preds.json", "preds", stage="rl-9")
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="cannot write"):
        export_episodes(journal, tmp_path / "file" / "preds.json", "preds")
    assert not list(tmp_path.glob("*.part"))
