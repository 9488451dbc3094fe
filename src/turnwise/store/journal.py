"""The run's journal: one SQLite file, written turn by turn, that a killed run goes on from."""

import hashlib
import json
import sqlite3
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import astuple
from pathlib import Path
from types import TracebackType
from typing import IO, Any

import numpy as np

from turnwise.errors import InputError, StoreError
from turnwise.store import decode
from turnwise.store.lock import lock_run
from turnwise.store.rows import EpisodeKey, EpisodeSummary, Evaluation, InfraFailure, StoredEpisode, StoredTurn, Update
from turnwise.store.schema import SCHEMA_VERSION, connect, create_tables, schema_version, upgrade
from turnwise.types import StopReason, Verdict
from turnwise.usage import Prices

_INSERT_TURN = "INSERT INTO turns VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"


class Journal:
    """Reads and writes one run. `Journal.open` for the one process that writes, `Journal.read` for any that looks on.

    Every method is one transaction, done when it returns, and safe to call from any thread. All raise StoreError where
    the file cannot be read or written (a full disk included); what was recorded before stays.

    >>> with Journal.open(tmp_path / "journal.sqlite", recipe_hash="a1") as journal:  # doctest: +SKIP
    ...     journal.start_episode(key, opening_ids)
    """

    def __init__(self, path: Path, connection: sqlite3.Connection, lock: IO[str] | None) -> None:
        self.path = path
        self._connection = connection
        self._lock = lock
        self._mutex = threading.RLock()

    @classmethod
    def open(cls, path: Path, recipe_hash: str) -> "Journal":
        """Open for writing, making the file if there is none.

        Raises StoreError when another process writes this run or the file is no journal, InputError when the run was
        started with another recipe.
        """
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = lock_run(path)
        try:
            with _named_errors(path):
                journal = cls(path, connect(path, read_only=False), lock)
                journal._check_version(new=True)
            journal._check_recipe(recipe_hash)
        except (StoreError, InputError):
            lock.close()
            raise
        return journal

    @classmethod
    def read(cls, path: Path) -> "Journal":
        """Open for reading, also while a run writes. Raises InputError when there is no journal at `path`."""
        if not path.is_file():
            raise InputError(f"no run here: {path} does not exist")
        with _named_errors(path):
            journal = cls(path, connect(path, read_only=True), None)
            journal._check_version(new=False)
        return journal

    def close(self) -> None:
        """Close the file and let go of the run."""
        with self._mutex:
            self._connection.close()
            if self._lock is not None:
                self._lock.close()

    def __enter__(self) -> "Journal":
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self.close()

    # Episodes, as they go

    def start_episode(
        self, key: EpisodeKey, opening_ids: Sequence[int], messages: Sequence[tuple[str, str]] = ()
    ) -> None:
        """Begin an episode with its opening's tokens and the (role, content) messages that they say.

        A no-op where the episode has begun before.
        """
        self._write(
            "INSERT OR IGNORE INTO episodes (id, stage, purpose, iteration, task_id, member, opening, messages)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            (
                *(str(key), key.stage, key.purpose, key.iteration, key.task_id, key.member),
                *(_ids(opening_ids), json.dumps(list(messages))),
            ),
        )

    def record_turn(self, key: EpisodeKey, stored: StoredTurn) -> None:
        """Record a finished turn that the episode goes on from.

        Raises StoreError where it is recorded already: no turn may be paid for twice.
        """
        self._write(_INSERT_TURN, _turn_row(key, stored))

    def finish_episode(
        self,
        key: EpisodeKey,
        stop_reason: StopReason,
        patch: str = "",
        last_turn: StoredTurn | None = None,
        left_out: Sequence[str] = (),
    ) -> None:
        """The episode ended, with this patch to verify; `left_out` names what it does not carry.

        Its last turn is recorded in the same transaction, so that the recorded turns of an episode that has not ended
        are always ones to go on from. Said again (a verification that failed for good), the later word holds.
        """
        with self._mutex, _named_errors(self.path), self._transaction():
            if last_turn is not None:
                self._connection.execute(_INSERT_TURN, _turn_row(key, last_turn))
            self._connection.execute(
                "UPDATE episodes SET stop_reason = ?, patch = ?, patch_hash = ?, left_out = ? WHERE id = ?",
                (
                    *(stop_reason, patch, None if stop_reason.is_infrastructure else _patch_hash(patch)),
                    *(json.dumps(list(left_out)), str(key)),
                ),
            )

    def record_rewards(self, key: EpisodeKey, rewards: Mapping[str, float]) -> None:
        """The episode is paid: nothing is left to do for it."""
        self._write("UPDATE episodes SET rewards = ? WHERE id = ?", (json.dumps(dict(rewards)), str(key)))

    def forget(self, keys: Iterable[EpisodeKey]) -> None:
        """Take episodes out, with their turns, as if they had never begun; failures stay counted."""
        ids = [(str(key),) for key in keys]
        with self._mutex, _named_errors(self.path), self._transaction():
            self._connection.executemany("DELETE FROM turns WHERE episode_id = ?", ids)
            self._connection.executemany("DELETE FROM episodes WHERE id = ?", ids)

    def episode(self, key: EpisodeKey) -> StoredEpisode | None:
        """The episode as far as it got, None where it never began."""
        row = self._one("SELECT * FROM episodes WHERE id = ?", (str(key),))
        if row is None:
            return None
        turns = self._all("SELECT * FROM turns WHERE episode_id = ? ORDER BY turn", (str(key),))
        verdict = None if row["patch_hash"] is None else self.verdict(key.task_id, row["patch"])
        return decode.episode(row, turns, verdict)

    # Verdicts

    def verdict(self, task_id: str, patch: str) -> Verdict | None:
        """The verdict on this very patch, where one was given before."""
        where = (task_id, _patch_hash(patch))
        row = self._one("SELECT * FROM verdicts WHERE task_id = ? AND patch_hash = ?", where)
        return None if row is None else decode.verdict(row)

    def record_verdict(self, task_id: str, patch: str, verdict: Verdict) -> None:
        """Keep a verdict for every episode that ends with the same patch."""
        outcomes = json.dumps(dict(verdict.fail_to_pass)), json.dumps(dict(verdict.pass_to_pass))
        self._write(
            "INSERT OR REPLACE INTO verdicts VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                *(task_id, _patch_hash(patch), verdict.kind, *outcomes, verdict.log, verdict.duration_s),
                *(verdict.reason, json.dumps(verdict.rules)),
            ),
        )

    # Training, evaluation, failures

    def record_update(self, stage: str, iteration: int, step: int, metrics: Mapping[str, float]) -> None:
        """One optimizer step; a step done again after a kill replaces its record."""
        row = (stage, iteration, step, json.dumps(dict(metrics)))
        self._write("INSERT OR REPLACE INTO updates VALUES (?, ?, ?, ?)", row)

    def record_evaluation(self, stage: str, iteration: int, figures: Mapping[str, Any]) -> None:
        """The figures of one evaluation, JSON values by name."""
        row = (stage, iteration, json.dumps(dict(figures)))
        self._write("INSERT OR REPLACE INTO evaluations VALUES (?, ?, ?)", row)

    def record_failure(self, cause: str, episode_id: str, detail: str, dropped: bool = False) -> None:
        """Count an infrastructure failure under its cause; `dropped` when the episode is given up for it."""
        row = (cause, episode_id, detail, dropped)
        self._write("INSERT INTO infra_failures (cause, episode_id, detail, dropped) VALUES (?, ?, ?, ?)", row)

    def set_state(self, stage: str, name: str, value: Any) -> None:
        """Keep a JSON value of a stage for resuming."""
        self._write("INSERT OR REPLACE INTO states VALUES (?, ?, ?)", (stage, name, json.dumps(value)))

    # Readers

    def state(self, stage: str, name: str) -> Any:
        """The value kept by `set_state`, None where there is none."""
        row = self._one("SELECT value FROM states WHERE stage = ? AND name = ?", (stage, name))
        return None if row is None else json.loads(row["value"])

    def prices(self) -> Prices | None:
        """What the run's endpoint charges per million tokens, None where its recipe does not say."""
        stored = self.state("run", "prices")
        return None if stored is None else Prices(**stored)

    def episodes(
        self, stage: str | None = None, purpose: str | None = None, iteration: int | None = None
    ) -> list[EpisodeSummary]:
        """Every ended episode, paid or dropped, in the order it began; narrowed by what is given."""
        return [decode.summary(row) for row in self._all(decode.SUMMARY_QUERY, _filter(stage, purpose, iteration))]

    def keys(
        self, stage: str | None = None, purpose: str | None = None, iteration: int | None = None
    ) -> list[EpisodeKey]:
        """The keys of every episode that has begun, in that order; narrowed by what is given."""
        query = f"SELECT id FROM episodes AS e {decode.FILTER} ORDER BY e.rowid"
        return [EpisodeKey.parse(row["id"]) for row in self._all(query, _filter(stage, purpose, iteration))]

    def updates(self, stage: str | None = None) -> list[Update]:
        """Optimizer steps in the order they were made."""
        query = "SELECT * FROM updates WHERE stage = coalesce(?, stage) ORDER BY rowid"
        return [decode.update(row) for row in self._all(query, (stage,))]

    def evaluations(self) -> list[Evaluation]:
        """Evaluations in the order they were made."""
        return [decode.evaluation(row) for row in self._all("SELECT * FROM evaluations ORDER BY rowid", ())]

    def failures(self) -> list[InfraFailure]:
        """Infrastructure failures in the order they happened."""
        return [decode.failure(row) for row in self._all("SELECT * FROM infra_failures ORDER BY id", ())]

    def failures_by_cause(self) -> dict[str, int]:
        """How many infrastructure failures each cause has."""
        rows = self._all("SELECT cause, count(*) AS n FROM infra_failures GROUP BY cause ORDER BY cause", ())
        return {row["cause"]: row["n"] for row in rows}

    # Inside

    def _check_version(self, new: bool) -> None:
        version = schema_version(self._connection)
        if version == 0 and new:
            create_tables(self._connection)
        elif version in range(1, SCHEMA_VERSION):
            upgrade(self._connection, version, read_only=not new)
        elif version != SCHEMA_VERSION:
            raise StoreError(f"{self.path} has format {version}; this Turnwise reads format {SCHEMA_VERSION}")

    def _check_recipe(self, recipe_hash: str) -> None:
        self._write("INSERT OR IGNORE INTO run VALUES ('recipe_hash', ?)", (recipe_hash,))
        row = self._one("SELECT value FROM run WHERE name = 'recipe_hash'", ())
        if row is None or row["value"] != recipe_hash:
            raise InputError(
                f"{self.path.parent} holds a run of another recipe; give this recipe a run folder of its own"
            )

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._connection.execute("COMMIT")
        except sqlite3.Error:
            if self._connection.in_transaction:  # a full disk may have rolled it back already
                self._connection.execute("ROLLBACK")
            raise

    def _write(self, statement: str, values: tuple[Any, ...]) -> None:
        with self._mutex, _named_errors(self.path):
            self._connection.execute(statement, values)

    def _one(self, query: str, values: tuple[Any, ...]) -> sqlite3.Row | None:
        rows = self._all(query, values)
        return rows[0] if rows else None

    def _all(self, query: str, values: tuple[Any, ...] | dict[str, Any]) -> list[sqlite3.Row]:
        with self._mutex, _named_errors(self.path):
            return self._connection.execute(query, values).fetchall()


@contextmanager
def _named_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        if getattr(error, "sqlite_errorname", "") == "SQLITE_FULL":
            hint = "the disk is full. Nothing recorded so far is lost: free some space and start the same command again"
        else:
            hint = str(error)
        raise StoreError(f"journal {path}: {hint}") from error


def _turn_row(key: EpisodeKey, stored: StoredTurn) -> tuple[Any, ...]:
    turn = stored.turn
    return (
        *(str(key), turn.index, turn.response, turn.command, turn.format_error, turn.observation, turn.exit_code),
        *(turn.start, turn.stop, turn.policy_version, turn.sample_s, turn.exec_s),
        *(_ids(stored.token_ids_T), _floats(stored.logprobs_T), _ids(stored.observation_ids_T)),
        None if turn.usage is None else json.dumps(astuple(turn.usage)),
    )


def _filter(stage: str | None, purpose: str | None, iteration: int | None) -> dict[str, Any]:
    return {"stage": stage, "purpose": purpose, "iteration": iteration}


def _patch_hash(patch: str) -> str:
    return hashlib.sha256(patch.encode()).hexdigest()


def _ids(values: Sequence[int] | np.ndarray[Any, Any]) -> bytes:
    return np.asarray(values, dtype="<i4").tobytes()


def _floats(values: Sequence[float] | np.ndarray[Any, Any]) -> bytes:
    return np.asarray(values, dtype="<f4").tobytes()
