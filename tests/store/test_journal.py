"""The journal on a real disk: what is written comes back, and what goes wrong has one clear error."""

import os
import pickle
import sqlite3
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from turnwise.errors import InputError, StoreError
from turnwise.store import EpisodeKey, Journal, StoredTurn
from turnwise.types import FormatError, StopReason, Turn, Verdict, VerdictKind
from turnwise.usage import Prices, Usage

KEY = EpisodeKey("rl-1", "train", 3, "toolz__toolz-17", 5)
OTHER = replace(KEY, member=6)
OPENING = [1, 2, 3]
VERDICT = Verdict(
    VerdictKind.RESOLVED, {"t.py::a": "passed"}, {"t.py::b": "skipped"}, "2 passed", 0.4, "why", ("frames", "exits")
)


def stored_turn(index: int, start: int, tokens=(7, 8, 9), observation=(4, 5), format_error=None) -> StoredTurn:
    command = None if format_error else "ls"
    exit_code = None if format_error else 0
    turn = Turn(index, "Look.", command, format_error, "calc.py", exit_code, start, start + len(tokens), 2, 0.5, 0.25)
    logprobs = np.linspace(-1, 0, len(tokens), dtype=np.float32)
    return StoredTurn(turn, np.array(tokens, np.int64), logprobs, np.array(observation, np.int64))


@pytest.fixture
def path(tmp_path):
    return tmp_path / "run" / "journal.sqlite"


@pytest.fixture
def journal(path):
    with Journal.open(path, "recipe") as journal:
        yield journal


def write_episode(journal: Journal, key: EpisodeKey = KEY, patch: str = "diff") -> None:
    journal.start_episode(key, OPENING, [("system", "Rules."), ("user", "Issue.")])
    journal.record_turn(key, stored_turn(0, 3))
    journal.finish_episode(key, StopReason.SUBMITTED, patch, stored_turn(1, 8, observation=()))


def test_an_episode_comes_back_as_it_was(journal):
    write_episode(journal)
    journal.record_verdict(KEY.task_id, "diff", VERDICT)
    journal.record_rewards(KEY, {"resolved": 1.0, "length": -0.25})

    episode = journal.episode(KEY)

    assert episode.messages == (("system", "Rules."), ("user", "Issue."))
    assert episode.wall_s == 1.5
    trajectory = episode.trajectory()
    assert trajectory.token_ids_T.tolist() == [1, 2, 3, 7, 8, 9, 4, 5, 7, 8, 9]
    assert trajectory.action_mask_T.tolist() == [False] * 3 + [True] * 3 + [False] * 2 + [True] * 3
    assert trajectory.behavior_logprobs_T.tolist() == [0, 0, 0, -1, -0.5, 0, 0, 0, -1, -0.5, 0]
    dtypes = trajectory.token_ids_T.dtype, trajectory.action_mask_T.dtype, trajectory.behavior_logprobs_T.dtype
    assert dtypes == (np.int64, np.bool_, np.float32)
    assert trajectory.turns == (stored_turn(0, 3).turn, stored_turn(1, 8).turn)
    assert (trajectory.verdict, trajectory.reward, trajectory.resolved) == (VERDICT, 0.75, True)
    assert trajectory.episode_id == str(KEY)


def test_an_episode_under_way_is_told_from_an_ended_one(journal):
    assert journal.episode(KEY) is None
    journal.start_episode(KEY, OPENING)
    journal.record_turn(KEY, stored_turn(0, 3, format_error=FormatError.NO_COMMAND))

    episode = journal.episode(KEY)

    assert (episode.stop_reason, len(episode.turns)) == (None, 1)
    assert episode.turns[0].turn.format_error is FormatError.NO_COMMAND
    assert journal.episodes() == []
    assert journal.keys() == [KEY]
    with pytest.raises(InputError, match="not ended"):
        episode.trajectory()


def test_beginning_again_keeps_what_is_there(journal):
    journal.start_episode(KEY, OPENING)
    journal.record_turn(KEY, stored_turn(0, 3))

    journal.start_episode(KEY, [9, 9])

    assert journal.episode(KEY).opening_ids_T.tolist() == OPENING
    assert len(journal.episode(KEY).turns) == 1


def test_a_turn_cannot_be_recorded_twice_and_an_end_is_all_or_nothing(journal):
    journal.start_episode(KEY, OPENING)
    journal.record_turn(KEY, stored_turn(0, 3))

    with pytest.raises(StoreError, match="UNIQUE"):
        journal.record_turn(KEY, stored_turn(0, 3))
    with pytest.raises(StoreError, match="UNIQUE"):
        journal.finish_episode(KEY, StopReason.SUBMITTED, "diff", stored_turn(0, 3))

    assert journal.episode(KEY).stop_reason is None
    journal.finish_episode(KEY, StopReason.TURN_LIMIT)
    assert journal.episode(KEY).stop_reason is StopReason.TURN_LIMIT


def test_a_verdict_is_found_by_task_and_patch(journal):
    journal.record_verdict(KEY.task_id, "diff", VERDICT)

    assert journal.verdict(KEY.task_id, "diff") == VERDICT
    assert journal.verdict(KEY.task_id, "diff ") is None
    assert journal.verdict("other", "diff") is None


def test_summaries_are_narrowed_and_count_what_they_say(journal):
    write_episode(journal)
    other = replace(KEY, purpose="evaluate", iteration=0)
    journal.start_episode(other, OPENING)
    last = stored_turn(0, 3, format_error=FormatError.MULTIPLE_COMMANDS)
    journal.finish_episode(other, StopReason.FORMAT_ERRORS, "", last)
    dropped = replace(KEY, member=6)
    journal.start_episode(dropped, ())
    journal.finish_episode(dropped, StopReason.SANDBOX_FAILURE)
    journal.record_verdict(KEY.task_id, "diff", VERDICT)
    journal.record_verdict(KEY.task_id, "", Verdict(VerdictKind.EMPTY_PATCH))
    journal.record_rewards(KEY, {"resolved": 1.0})

    first, second, third = journal.episodes()

    assert (first.key, first.turns, first.format_errors, first.tokens, first.wall_s) == (KEY, 2, 0, 6, 1.5)
    assert (first.resolved, first.rewards) == (True, {"resolved": 1.0})
    assert (second.stop_reason, second.format_errors, second.verdict) == (StopReason.FORMAT_ERRORS, 1, "empty_patch")
    assert (third.stop_reason.is_infrastructure, third.turns, third.verdict) == (True, 0, None)
    assert [summary.key for summary in journal.episodes("rl-1", "evaluate")] == [other]
    assert [summary.key for summary in journal.episodes(iteration=3)] == [KEY, dropped]
    assert journal.episodes("rl-2") == []


def test_updates_evaluations_failures_and_states(journal):
    journal.record_update("rl-1", 0, 0, {"loss": 0.5})
    journal.record_update("rl-2", 0, 0, {"loss": 0.1})
    journal.record_update("rl-1", 0, 0, {"loss": 0.25})
    journal.record_evaluation("base", 0, {"pass_at_1": 0.1, "runs": 4})
    journal.record_failure("sandbox_failure", str(KEY), "died")
    journal.record_failure("sandbox_failure", str(KEY), "died again", dropped=True)
    journal.set_state("rl-1", "pool", ["a", "b"])

    assert [(update.step, update.metrics) for update in journal.updates("rl-1")] == [(0, {"loss": 0.25})]
    assert len(journal.updates()) == 2
    assert [(each.stage, each.figures) for each in journal.evaluations()] == [("base", {"pass_at_1": 0.1, "runs": 4})]
    assert journal.failures_by_cause() == {"sandbox_failure": 2}
    assert [(failure.detail, failure.dropped) for failure in journal.failures()] == [
        ("died", False),
        ("died again", True),
    ]
    assert (journal.state("rl-1", "pool"), journal.state("rl-1", "none")) == (["a", "b"], None)


@pytest.mark.parametrize("wrong", ["a/b", "rl-1/train/x/t/0", "rl-1/play/0/t/0"])
def test_an_id_that_names_no_episode_is_refused(wrong):
    assert EpisodeKey.parse(str(KEY)) == KEY
    with pytest.raises(InputError, match="episode"):
        EpisodeKey.parse(wrong)


def test_a_second_writer_is_refused_by_the_holders_pid(journal, path):
    code = (
        "import sys; from pathlib import Path; from turnwise.store import Journal\n"
        "try: Journal.open(Path(sys.argv[1]), 'recipe')\n"
        "except Exception as error: print(type(error).__name__, error)"
    )

    done = subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True, check=True)

    assert done.stdout.startswith("StoreError")
    assert f"(pid {os.getpid()})" in done.stdout


def test_a_reader_sees_what_a_writer_has_written_so_far(journal, path):
    with Journal.read(path) as reader:
        write_episode(journal)
        assert len(reader.episodes()) == 1
        with pytest.raises(StoreError, match="readonly"):
            reader.record_rewards(KEY, {})


def test_a_run_goes_on_only_with_its_own_recipe(path):
    Journal.open(path, "one").close()

    with pytest.raises(InputError, match="another recipe"):
        Journal.open(path, "two")
    Journal.open(path, "one").close()


def test_what_is_no_journal_is_refused(tmp_path):
    (tmp_path / "text").write_text("not a database, not at all" * 99)
    sqlite3.connect(tmp_path / "foreign").execute("PRAGMA user_version=99").connection.close()

    with pytest.raises(StoreError, match="not a database"):
        Journal.open(tmp_path / "text", "recipe")
    with pytest.raises(StoreError, match="format 99"):
        Journal.open(tmp_path / "foreign", "recipe")
    with pytest.raises(InputError, match="no run here"):
        Journal.read(tmp_path / "nowhere")


WRITE_UNTIL_KILLED = """
import os, pickle, signal, sys
from pathlib import Path
from turnwise.store import Journal
key, opening, turns = pickle.loads(Path(sys.argv[2]).read_bytes())
journal = Journal.open(Path(sys.argv[1]), "recipe")
journal.start_episode(key, opening)
for turn in turns:
    journal.record_turn(key, turn)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_was_recorded_outlives_kill_9(path, tmp_path):
    turns = [stored_turn(index, 3 + 5 * index) for index in range(40)]
    (tmp_path / "work").write_bytes(pickle.dumps((KEY, OPENING, turns)))

    done = subprocess.run([sys.executable, "-c", WRITE_UNTIL_KILLED, path, tmp_path / "work"], check=False)

    assert done.returncode == -9
    with Journal.open(path, "recipe") as journal:
        assert [stored.turn for stored in journal.episode(KEY).turns] == [stored.turn for stored in turns]


WRITE_UNTIL_FULL = """
import pickle, sys
from pathlib import Path
from turnwise.errors import StoreError
from turnwise.store import Journal
key, opening, turns = pickle.loads(sys.stdin.buffer.read())
journal = Journal.open(Path(sys.argv[1]) / "journal.sqlite", "recipe")
journal.start_episode(key, opening)
written = 0
try:
    for turn in turns:
        journal.record_turn(key, turn)
        written += 1
except StoreError as error:
    print(error)
print(written, len(journal.episode(key).turns))
"""


def test_a_full_disk_is_one_clear_error_and_loses_nothing(tmp_path):
    turns = [stored_turn(index, 0, tokens=range(5_000)) for index in range(60)]
    view = ["--ro-bind", "/", "/", "--dev", "/dev", "--size", str(1 << 20), "--tmpfs", str(tmp_path)]

    done = subprocess.run(
        ["bwrap", *view, sys.executable, "-c", WRITE_UNTIL_FULL, tmp_path],
        input=pickle.dumps((KEY, OPENING, turns)),
        capture_output=True,
        check=True,
    )

    message, counts = done.stdout.decode().splitlines()
    written, kept = map(int, counts.split())
    assert "the disk is full" in message
    assert "nothing" in message.lower()
    assert 5 < written == kept < 60


def counted_turn(index: int, start: int, usage: Usage) -> StoredTurn:
    stored = stored_turn(index, start)
    return replace(stored, turn=replace(stored.turn, usage=usage))


def test_an_endpoints_count_comes_back_turn_by_turn_and_summed(journal):
    journal.start_episode(KEY, OPENING)
    journal.record_turn(KEY, counted_turn(0, 3, Usage(100, 0, 20)))
    journal.finish_episode(KEY, StopReason.SUBMITTED, "", counted_turn(1, 8, Usage(150, 90, 30)))
    write_episode(journal, OTHER)
    assert [stored.turn.usage for stored in journal.episode(KEY).turns] == [Usage(100, 0, 20), Usage(150, 90, 30)]
    counted, plain = journal.episodes()
    assert (counted.usage, counted.tokens) == (Usage(250, 90, 50), 50)
    assert (counted.uncounted_turns, plain.uncounted_turns) == (0, 2)
    assert (plain.usage, plain.tokens) == (None, 6)


def test_prices_are_kept_where_there_are_any(journal):
    assert journal.prices() is None
    journal.set_state("run", "prices", {"prompt": 1.0, "cached": 0.5, "completion": 2.0})
    assert journal.prices() == Prices(1.0, 0.5, 2.0)


OLDER = {
    1: "ALTER TABLE turns DROP COLUMN usage; ALTER TABLE verdicts DROP COLUMN reason;",
    2: "",
}
WITHOUT_LEFT_OUT = "ALTER TABLE episodes DROP COLUMN left_out;"
WITHOUT_RULES = "ALTER TABLE verdicts DROP COLUMN rules;"


@pytest.mark.parametrize("version", OLDER)
def test_a_journal_without_what_patches_leave_out_is_read_and_gone_on_with(path, version):
    with Journal.open(path, "recipe") as journal:
        write_episode(journal)
    connection = sqlite3.connect(path)
    columns = OLDER[version] + WITHOUT_LEFT_OUT + WITHOUT_RULES
    connection.executescript(f"{columns} PRAGMA user_version={version};")
    connection.close()

    with Journal.read(path) as journal:
        assert journal.episode(KEY).left_out == ()
        assert journal.keys() == [KEY]
        assert len(journal.episodes()) == 1
    with Journal.open(path, "recipe") as journal:
        journal.start_episode(OTHER, OPENING)
        journal.finish_episode(OTHER, StopReason.SUBMITTED, "a patch", left_out=["pipe: no file"])
        assert journal.episode(OTHER).trajectory().left_out == ("pipe: no file",)


def test_a_journal_without_tripwires_is_read_and_gone_on_with(path):
    with Journal.open(path, "recipe") as journal:
        write_episode(journal)
        journal.record_verdict(KEY.task_id, "old", VERDICT)
    connection = sqlite3.connect(path)
    connection.executescript(f"{WITHOUT_RULES} PRAGMA user_version=3;")
    connection.close()

    with Journal.read(path) as journal:
        assert journal.verdict(KEY.task_id, "old") == replace(VERDICT, rules=())
        assert [each.rules for each in journal.episodes()] == [()]
    with Journal.open(path, "recipe") as journal:
        journal.record_verdict(KEY.task_id, "new", VERDICT)
        assert journal.verdict(KEY.task_id, "new") == VERDICT


def test_a_summary_has_the_tripwires_and_counts_what_the_patch_lacks(journal):
    journal.start_episode(KEY, OPENING)
    journal.finish_episode(KEY, StopReason.SUBMITTED, "diff", left_out=["pipe: no file", "sub: a submodule"])
    journal.record_verdict(KEY.task_id, "diff", VERDICT)
    (summary,) = journal.episodes()
    assert (summary.rules, summary.left_out) == (("frames", "exits"), 2)


def test_a_journal_of_format_1_is_read_as_it_is_and_gone_on_with(path):
    with Journal.open(path, "recipe") as journal:
        write_episode(journal)
        journal.record_verdict(KEY.task_id, "old", VERDICT)
    connection = sqlite3.connect(path)
    columns = OLDER[1] + WITHOUT_LEFT_OUT + WITHOUT_RULES
    connection.executescript(f"{columns} PRAGMA user_version=1;")
    connection.close()
    before = path.read_bytes()

    with Journal.read(path) as journal:
        assert journal.verdict(KEY.task_id, "old") == replace(VERDICT, reason="", rules=())
        assert [stored.turn.usage for stored in journal.episode(KEY).turns] == [None, None]
        assert [(each.tokens, each.usage) for each in journal.episodes()] == [(6, None)]
    assert path.read_bytes() == before

    with Journal.open(path, "recipe") as journal:
        journal.start_episode(OTHER, OPENING)
        journal.record_turn(OTHER, counted_turn(0, 3, Usage(1, 0, 2)))
        journal.record_verdict(KEY.task_id, "new", VERDICT)
    with Journal.read(path) as journal:
        assert journal.verdict(KEY.task_id, "new") == VERDICT
        assert journal.episode(OTHER).turns[0].turn.usage == Usage(1, 0, 2)
        assert journal.episode(KEY).turns[0].turn.usage is None
